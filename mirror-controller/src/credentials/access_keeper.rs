//! Keeps access to one target cluster's API: reads the kubeconfig, swaps to a client once it works, renews the token.

use crate::{
    credentials::{
        access_step::{Found, Step, next},
        desk::Desk,
        finding::{Finding, link_again},
        kubeconfig::Credentials,
        remote_api::{AccessError, connect, new_token, probe},
        token::{Account, Token},
    },
    issuer::api_call::{CallError, call, follow_or_tell},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PostParams},
};
use linkspan_core::{
    api::{
        credentials::{KUBECONFIG, REMOTE_KUBECONFIG_TYPE},
        labels::FIELD_MANAGER,
        link::Link,
        names::live_credentials_secret,
    },
    process::backoff::Backoff,
};
use std::{collections::BTreeMap, pin::pin, time::Duration};
use tokio::time::Instant;

/// How often a client that works is tried again: a deleted account is noticed within this time.
const CHECK_AGAIN: Duration = Duration::from_secs(10);

/// Shortest time between two renewals, however old the target's clock makes a new token.
const BETWEEN: Duration = Duration::from_secs(60);

/// Keeps the access until the shutdown.
pub async fn run(desk: Desk) {
    let secrets: Api<Secret> = Api::namespaced(desk.context.client.clone(), &desk.context.namespace);
    let mut keeper = Keeper {
        live: live_credentials_secret(&desk.link.name),
        secrets: secrets.clone(),
        in_use: None,
        renew_from: Instant::now(),
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        desk,
    };
    let mut given_news = pin!(follow_or_tell(secrets.clone(), &keeper.desk.link.credentials_secret));
    let mut live_news = pin!(follow_or_tell(secrets, &keeper.live));
    let mut leader = keeper.desk.context.leader.clone();
    let shutdown = keeper.desk.context.shutdown.clone();
    let (mut given, mut live): (Option<Found>, Option<Found>) = (None, None);
    let mut wait = CHECK_AGAIN;
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            Some(seen) = given_news.next() => keeper.take(seen, &mut given),
            Some(seen) = live_news.next() => keeper.take(seen, &mut live),
            Ok(()) = leader.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        if let (Some(given), Some(live)) = (&given, &live) {
            wait = keeper.keep(given, live).await;
        }
    }
}

fn found(secret: Option<&Secret>) -> Found {
    let secret = secret?;
    let bytes = secret.data.as_ref().and_then(|data| data.get(KUBECONFIG));
    let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let text = text.ok_or_else(|| format!("it has no text under key {KUBECONFIG}"));
    Some(text.and_then(|text| Credentials::read(text).map_err(|e| e.to_string())))
}

struct Keeper {
    desk: Desk,
    secrets: Api<Secret>,
    /// Name of the Secret with what we renewed.
    live: String,
    in_use: Option<InUse>,
    renew_from: Instant,
    backoff: Backoff,
}

struct InUse {
    credentials: Credentials,
    client: Client,
    account: Account,
}

impl Keeper {
    /// Takes what a watch saw of one Secret. While it was never seen, why not is told.
    fn take(&self, seen: Result<Option<Secret>, String>, into: &mut Option<Found>) {
        match seen {
            Ok(secret) => *into = Some(found(secret.as_ref())),
            Err(_) if into.is_some() => {}
            Err(why) => {
                let again = link_again(&self.desk.link.name);
                let message = format!(
                    "the credentials cannot be read here: {why}; run `{again}`, which brings the right to it"
                );
                self.desk
                    .tell(|access| access.findings.access = Finding::Pending("SecretUnreadable", message));
            }
        }
    }

    /// Does what is next, and returns how long to wait before looking again.
    async fn keep(&mut self, given: &Found, live: &Found) -> Duration {
        let now = self.desk.now();
        let link = &self.desk.link;
        match next(&link.name, &link.credentials_secret, given, live, now) {
            Step::GiveUp(finding) => {
                if self.in_use.take().is_some() {
                    self.desk.replace_remote(None);
                }
                self.desk.tell(|access| {
                    access.findings.access = finding;
                    access.token_expires_at = None;
                });
                CHECK_AGAIN
            }
            Step::Use(credentials, renew_at) => {
                let expires_at = credentials.token.expires_at;
                let worked = self.use_credentials(*credentials).await;
                let (finding, mut wait) = match worked {
                    Ok(()) => match self.renew(renew_at, expires_at, now).await {
                        Ok(wait) => {
                            self.backoff.reset();
                            (Finding::Fine, wait)
                        }
                        Err(finding) => (finding, self.backoff.wait(&mut rand::rng())),
                    },
                    Err(error) => (self.finding(&error), self.backoff.wait(&mut rand::rng())),
                };
                if let Some(end) = expires_at {
                    wait = wait.min(Duration::try_from(end.duration_since(now)).unwrap_or_default());
                }
                self.desk.tell(|access| {
                    access.findings.access = finding;
                    access.token_expires_at = expires_at;
                });
                wait
            }
        }
    }

    /// Swaps to `credentials` once they work; where they are in use, sees whether they still do.
    async fn use_credentials(&mut self, credentials: Credentials) -> Result<(), AccessError> {
        let namespace = &self.desk.gateway.namespace;
        if let Some(in_use) = &self.in_use
            && in_use.credentials == credentials
        {
            return probe(&in_use.client, namespace).await;
        }
        let (client, account) = connect(&credentials, namespace).await?;
        tracing::info!(
            link = self.desk.link.name,
            account = account.name,
            "the target cluster's API can be used"
        );
        self.desk.replace_remote(Some((client.clone(), account.clone())));
        self.in_use = Some(InUse { credentials, client, account });
        Ok(())
    }

    /// Renews the token in use where that is due. The watch of the Secret brings what was written.
    async fn renew(
        &mut self,
        renew_at: Option<Timestamp>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Duration, Finding> {
        let (Some(in_use), Some(renew_at)) = (&self.in_use, renew_at) else { return Ok(CHECK_AGAIN) };
        let until = Duration::try_from(renew_at.duration_since(now)).unwrap_or_default();
        if !until.is_zero() {
            return Ok(CHECK_AGAIN.min(until));
        }
        let too_early = self.renew_from.saturating_duration_since(Instant::now());
        if !self.desk.leads() || !too_early.is_zero() {
            return Ok(CHECK_AGAIN);
        }
        match self.write_renewed(in_use).await {
            Ok(()) => {
                self.renew_from = Instant::now() + BETWEEN;
                Ok(CHECK_AGAIN)
            }
            Err(error) => {
                self.desk.tell(|access| access.token_failures += 1);
                tracing::warn!(
                    link = self.desk.link.name,
                    error,
                    "the token cannot be renewed; trying again"
                );
                let end = expires_at.map(|end| format!(" (it ends at {end:.0})")).unwrap_or_default();
                let message =
                    format!("the token for the target cluster's API cannot be renewed{end}: {error}");
                Err(Finding::Ailing("RenewalFailing", message))
            }
        }
    }

    async fn write_renewed(&self, in_use: &InUse) -> Result<(), String> {
        let token = new_token(&in_use.client, &in_use.account).await.map_err(|e| e.to_string())?;
        if let Some(made) = Token::read(&token).issued_at {
            let ahead = made.duration_since(self.desk.now());
            self.desk.tell(|access| access.target_is_ahead = Some(ahead));
        }
        let kubeconfig = in_use.credentials.with_token(&token).map_err(|e| e.to_string())?;
        let present = call(self.secrets.get_opt(&self.live)).await.map_err(|e| e.to_string())?;
        let written = self.write(present, kubeconfig).await;
        written.map_err(|e| format!("Secret {} cannot be written: {e}", self.live))?;
        tracing::info!(link = self.desk.link.name, "renewed the token for the target cluster's API");
        Ok(())
    }

    async fn write(&self, present: Option<Secret>, kubeconfig: String) -> Result<(), CallError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let data = BTreeMap::from([(KUBECONFIG.to_owned(), ByteString(kubeconfig.into_bytes()))]);
        let Some(mut secret) = present else {
            let owner = OwnerReference {
                api_version: Link::api_version(&()).into_owned(),
                kind: Link::kind(&()).into_owned(),
                name: self.desk.link.name.clone(),
                uid: self.desk.link.uid.clone(),
                ..OwnerReference::default()
            };
            let metadata = ObjectMeta {
                name: Some(self.live.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            };
            let type_ = Some(REMOTE_KUBECONFIG_TYPE.to_owned());
            let secret = Secret { metadata, type_, data: Some(data), ..Secret::default() };
            return call(self.secrets.create(&params, &secret)).await.map(|_| ());
        };
        secret.data = Some(data);
        call(self.secrets.replace(&self.live, &params, &secret)).await.map(|_| ())
    }

    fn finding(&self, error: &AccessError) -> Finding {
        let again = link_again(&self.desk.link.name);
        match error {
            AccessError::Unreachable(_) => Finding::Pending("Unreachable", error.to_string()),
            AccessError::Unauthorized => Finding::Wrong("Unauthorized", format!("{error}; run `{again}`")),
            AccessError::Forbidden(_) => Finding::Wrong("Forbidden", error.to_string()),
            AccessError::Unusable(_) | AccessError::NotAnAccount(_) => {
                Finding::Wrong("KubeconfigInvalid", format!("{error}; run `{again}`"))
            }
        }
    }
}
