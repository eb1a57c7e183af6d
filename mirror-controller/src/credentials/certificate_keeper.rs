//! Keeps the client certificate for one link: asks the target cluster for it, waits for its signer, renews it.

use crate::{
    credentials::{
        certificate_need::{Answer, Expected, Need, answer, need, request, target_is_ahead},
        desk::{Desk, Remote},
        finding::{Finding, clocks, clocks_differ, link_again},
    },
    issuer::{
        api_call::{CallError, call},
        ca::TOLERATED_SKEW,
    },
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{Api, ResourceExt, api::PostParams};
use linkspan_core::{api::identity::Identity, process::backoff::Backoff};
use rcgen::KeyPair;
use std::time::Duration;
use tokio::time::Instant;

/// How long the target's signer may take.
const SIGNER_TIMEOUT: Duration = Duration::from_secs(60);
/// Shortest time between two certificates, however short they live.
const BETWEEN: Duration = Duration::from_secs(10);
/// Longest time between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the certificate request was denied by the target cluster: {0}")]
    Denied(String),
    #[error("the certificate request was approved but not signed by the target cluster: {0}")]
    Failed(String),
    #[error(
        "the target cluster's signer has not answered request {0} within {timeout} s: check that its mirror controller runs",
        timeout = SIGNER_TIMEOUT.as_secs()
    )]
    Silent(String),
    #[error("the certificate that the target cluster signed cannot be used: {0}")]
    Useless(&'static str),
    #[error("the certificate that the target cluster signed cannot be used: {0}")]
    Skewed(String),
    #[error("no certificate can be asked for in the target cluster: {0}")]
    Call(#[from] CallError),
    #[error("no certificate request can be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// Keeps the certificate until the shutdown.
pub async fn run(desk: Desk) {
    let (mut remote, mut held) = (desk.remote(), desk.context.exchange.held());
    let mut wanted = desk.context.exchange.wanted();
    let mut leader = desk.context.leader.clone();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
    let (mut wait, mut ask_from) = (Duration::ZERO, Instant::now());
    loop {
        tokio::select! {
            () = desk.context.shutdown.started() => return,
            Ok(()) = remote.changed() => {
                // Other credentials may mend what failed; nothing else shortens the wait after a failure.
                backoff.reset();
                ask_from = Instant::now();
            }
            Ok(()) = held.changed() => {}
            Ok(()) = wanted.changed() => {}
            Ok(()) = leader.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        let (Some(access), Some(holds)) =
            (remote.borrow_and_update().clone(), held.borrow_and_update().clone())
        else {
            wait = LOOK_AGAIN;
            continue;
        };
        wanted.borrow_and_update();
        leader.borrow_and_update();
        let Ok(key) = KeyPair::from_pem(&holds.client_key) else {
            wait = LOOK_AGAIN;
            continue;
        };
        let held_now = holds.certificates.get(&desk.link.name).map(String::as_str);
        wait = match keep(&desk, &access, &key, held_now, ask_from).await {
            Outcome::Good(wait) => {
                backoff.reset();
                wait
            }
            Outcome::NotNow(wait) => wait,
            Outcome::Asked => {
                backoff.reset();
                ask_from = Instant::now() + BETWEEN;
                Duration::ZERO
            }
            Outcome::Failed => {
                let wait = backoff.wait(&mut rand::rng());
                ask_from = Instant::now() + wait;
                wait
            }
        };
    }
}

/// How a look at the certificate ended.
enum Outcome {
    /// It is good; look again after this time.
    Good(Duration),
    /// It is not good, but it is not the time, or not on us, to ask; look again after this time.
    NotNow(Duration),
    /// Another was asked for and signed.
    Asked,
    /// It was asked for in vain.
    Failed,
}

/// Sees whether the certificate is good, else asks for another, but not before `ask_from`.
async fn keep(desk: &Desk, access: &Remote, key: &KeyPair, held: Option<&str>, ask_from: Instant) -> Outcome {
    let identity = account_identity(desk, access);
    let peer =
        desk.context.exchange.wanted().borrow().peers.get(&desk.link.name).cloned().unwrap_or_default();
    let expected =
        Expected { key, identity: &identity, uid: &access.account.uid, bundle: peer.bundle.as_deref() };
    let present = peer.certificate.as_deref().or(held);
    let (why, usable_until) = match need(present, &expected, desk.now()) {
        Need::Nothing { renew_at, expires_at } => {
            // Once the gateways hold it, or another replica leads, it is no longer ours to bring.
            if peer.certificate.as_deref() == held || !desk.leads() {
                bring(desk, None);
            }
            desk.tell(|access| {
                access.findings.certificate = clocks(access.target_is_ahead);
                access.certificate_expires_at = Some(expires_at);
            });
            let until = Duration::try_from(renew_at.duration_since(desk.now())).unwrap_or_default();
            return Outcome::Good(until.min(LOOK_AGAIN));
        }
        Need::Another { why, usable_until } => (why, usable_until),
    };
    desk.tell(|access| {
        access.certificate_expires_at = usable_until;
        if usable_until.is_none() && !matches!(access.findings.certificate, Finding::Wrong(..)) {
            let message = format!("a client certificate is asked for in the target cluster: {why}");
            access.findings.certificate = Finding::Pending("CertificatePending", message);
        }
    });
    if !desk.leads() {
        return Outcome::NotNow(LOOK_AGAIN);
    }
    let too_early = ask_from.saturating_duration_since(Instant::now());
    if !too_early.is_zero() {
        return Outcome::NotNow(too_early);
    }
    tracing::info!(link = desk.link.name, why, "asking the target cluster for a client certificate");
    match ask(desk, access, &expected).await {
        Ok(pem) => {
            tracing::info!(link = desk.link.name, "the target cluster signed a client certificate");
            bring(desk, Some(pem));
            Outcome::Asked
        }
        Err(error) => {
            tracing::warn!(link = desk.link.name, %error, "no client certificate; trying again");
            desk.tell(|access| {
                access.certificate_failures += 1;
                access.findings.certificate = finding(&error, &desk.link.name, usable_until);
            });
            Outcome::Failed
        }
    }
}

/// Brings `certificate` to whoever writes the gateways' Secret.
fn bring(desk: &Desk, certificate: Option<String>) {
    desk.context.exchange.want(|wanted| {
        wanted.peers.entry(desk.link.name.clone()).or_default().certificate = certificate;
    });
}

fn account_identity(desk: &Desk, access: &Remote) -> Identity {
    Identity::link_account(desk.gateway.trust_domain.clone(), &access.account.namespace, &access.account.name)
}

/// Makes a request and waits for its answer. The account may read it by name, and nothing more.
async fn ask(desk: &Desk, access: &Remote, expected: &Expected<'_>) -> Result<String, RequestError> {
    let requests: Api<CertificateSigningRequest> = Api::all(access.client.clone());
    let made = request(expected.key, expected.identity)?;
    let name = call(requests.create(&PostParams::default(), &made)).await?.name_any();
    let deadline = Instant::now() + SIGNER_TIMEOUT;
    let mut pause = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let wait = pause.wait(&mut rand::rng());
        tokio::time::sleep(wait).await;
        match answer(&call(requests.get(&name)).await?) {
            Answer::Signed(pem) => {
                let now = desk.now();
                let ahead = target_is_ahead(&pem, now);
                desk.tell(|access| access.target_is_ahead = ahead);
                return match (need(Some(&pem), expected, now), ahead) {
                    (Need::Nothing { .. }, _) => Ok(pem),
                    (_, Some(ahead)) if ahead.abs() > TOLERATED_SKEW => {
                        Err(RequestError::Skewed(clocks_differ(ahead)))
                    }
                    (Need::Another { why, .. }, _) => Err(RequestError::Useless(why)),
                };
            }
            Answer::Denied(words) => return Err(RequestError::Denied(words)),
            Answer::Failed(words) => return Err(RequestError::Failed(words)),
            Answer::Waiting if Instant::now() >= deadline => return Err(RequestError::Silent(name)),
            Answer::Waiting => {}
        }
    }
}

fn finding(error: &RequestError, link: &str, usable_until: Option<jiff::Timestamp>) -> Finding {
    if let Some(end) = usable_until {
        return Finding::Ailing(
            "RenewalFailing",
            format!("{error}; the present certificate ends at {end:.0}"),
        );
    }
    let message = error.to_string();
    match error {
        RequestError::Denied(_) => Finding::Wrong("CertificateDenied", message),
        RequestError::Failed(_) | RequestError::Useless(_) | RequestError::Crypto(_) => {
            Finding::Wrong("CertificateFailed", message)
        }
        RequestError::Silent(_) => Finding::Wrong("SignerSilent", message),
        RequestError::Skewed(_) => Finding::Wrong("ClockSkew", message),
        RequestError::Call(CallError::Refused { code: 401, .. }) => {
            Finding::Wrong("Unauthorized", format!("{message}; run `{}`", link_again(link)))
        }
        RequestError::Call(CallError::Refused { code: 403, .. }) => Finding::Wrong("Forbidden", message),
        RequestError::Call(_) => Finding::Pending("Unreachable", message),
    }
}
