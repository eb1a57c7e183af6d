//! Watches what linked clusters ask our signer for, and acts on the verdicts of [`crate::issuer::review`].
//!
//! Approving and signing are two steps on the object's newest version: an update in between is a conflict, and the
//! request is looked at anew. Every step reads the account afresh.

use crate::issuer::{
    IssuerContext,
    api_call::{CallError, call},
    ca::{CertificateAuthority, Leaf, Usage},
    ca_keeper::CurrentCa,
    certificate::{Certificate, CertificateError},
    review::{Asked, Grant, House, LiveAccount, Verdict, review},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
        core::v1::ServiceAccount,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use linkspan_core::{
    api::labels::{FIELD_MANAGER, LINK_ACCOUNT, SIGNER},
    process::backoff::Backoff,
};
use std::{pin::pin, sync::Arc, time::Duration};

/// `reason` of the conditions we set.
const REVIEWED: &str = "LinkspanReview";

/// Why a request could not be dealt with now.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Ca(#[from] crate::issuer::ca::CaError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Signs while this replica leads and there is a CA, until the shutdown.
pub(super) async fn run(context: IssuerContext, mut ca: CurrentCa) {
    let mut leader = context.leader.clone();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let current = tokio::select! {
            () = context.shutdown.started() => return,
            current = turn(&mut leader, &mut ca) => current,
        };
        let Some(current) = current else { return };
        let signer = Signer::new(&context, current);
        tokio::select! {
            () = context.shutdown.started() => return,
            _ = leader.changed() => backoff.reset(),
            _ = ca.changed() => backoff.reset(),
            error = signer.serve() => {
                tracing::warn!(%error, "a certificate request could not be dealt with; looking at all of them again");
                let wait = backoff.wait(&mut rand::rng());
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Waits until this replica leads and there is a CA; `None` when either can never be.
async fn turn(
    leader: &mut tokio::sync::watch::Receiver<bool>,
    ca: &mut CurrentCa,
) -> Option<Arc<CertificateAuthority>> {
    leader.wait_for(|leads| *leads).await.ok()?;
    let current = ca.wait_for(Option::is_some).await.ok()?;
    current.clone()
}

struct Signer<'a> {
    context: &'a IssuerContext,
    requests: Api<CertificateSigningRequest>,
    accounts: Api<ServiceAccount>,
    house: House,
    ca: Arc<CertificateAuthority>,
}

impl<'a> Signer<'a> {
    fn new(context: &'a IssuerContext, ca: Arc<CertificateAuthority>) -> Self {
        Self {
            context,
            requests: Api::all(context.client.clone()),
            accounts: Api::namespaced(context.client.clone(), &context.namespace),
            house: House { trust_domain: context.trust_domain.clone(), namespace: context.namespace.clone() },
            ca,
        }
    }

    /// Deals with every request there is and every one that comes; returns with the first that could not be dealt with.
    async fn serve(&self) -> SignError {
        let only_ours = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let mut events = pin!(watcher::watcher(self.requests.clone(), only_ours).default_backoff());
        while let Some(event) = events.next().await {
            let request = match event {
                Ok(Event::Apply(request) | Event::InitApply(request)) => request,
                Ok(Event::Delete(_) | Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    tracing::warn!(%error, "watch of certificate requests broke; trying again");
                    continue;
                }
            };
            match self.deal_with(request).await {
                Ok(()) => {}
                // Somebody else wrote it, or it was deleted: the watch brings what is true now.
                Err(SignError::Call(error)) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => return error,
            }
        }
        SignError::Call(CallError::Broken("the watch of certificate requests ended".to_owned()))
    }

    async fn deal_with(&self, request: CertificateSigningRequest) -> Result<(), SignError> {
        let asked = Asked::of(&request);
        if !asked.is_open() {
            return Ok(());
        }
        let account = match asked.account(&self.house.namespace) {
            Some(name) => call(self.accounts.get_opt(name)).await?.map(|account| LiveAccount {
                uid: account.uid().unwrap_or_default(),
                link_account: account.labels().get(LINK_ACCOUNT).is_some_and(|value| value == "true")
                    && account.metadata.deletion_timestamp.is_none(),
            }),
            None => None,
        };
        let now = self.context.clock.now();
        let (name, who) = (asked.name.as_str(), asked.username.as_str());
        match review(&asked, account.as_ref(), &self.house) {
            Verdict::Ignore => Ok(()),
            Verdict::Approve => {
                let message = "asked by the link account it is for";
                self.put(request, "approval", |r| condition(r, "Approved", message, now)).await
            }
            Verdict::Sign(grant) => {
                let certificate = self.issue(&grant, now)?;
                // Whoever has to deny this certificate finds its serial number here.
                let facts = Certificate::first_of(&certificate)?;
                self.put(request, "status", |r| {
                    r.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                })
                .await?;
                let (serial, until) = (facts.serial, facts.not_after);
                tracing::info!(request = name, account = who, serial, %until, "signed a gateway's client certificate");
                Ok(())
            }
            Verdict::Deny(refusal) => {
                tracing::warn!(request = name, account = who, reason = %refusal, "denied a certificate request");
                self.put(request, "approval", |r| condition(r, "Denied", &refusal.to_string(), now)).await
            }
            Verdict::Fail(refusal) => {
                tracing::warn!(request = name, account = who, reason = %refusal, "an approved request is not signed");
                self.put(request, "status", |r| condition(r, "Failed", &refusal.to_string(), now)).await
            }
        }
    }

    fn issue(&self, grant: &Grant, now: Timestamp) -> Result<String, crate::issuer::ca::CaError> {
        let leaf = Leaf {
            identity: &grant.identity,
            uid: Some(&grant.uid),
            usage: Usage::Client,
            public_key: &grant.public_key,
            lifetime: grant.lifetime,
            serial: rand::random(),
        };
        self.ca.sign(&leaf, now)
    }

    async fn put(
        &self,
        mut request: CertificateSigningRequest,
        subresource: &str,
        change: impl FnOnce(&mut CertificateSigningRequest),
    ) -> Result<(), SignError> {
        change(&mut request);
        let name = request.name_any();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        call(self.requests.replace_subresource(subresource, &name, &params, &request)).await?;
        Ok(())
    }
}

fn condition(request: &mut CertificateSigningRequest, kind: &str, message: &str, now: Timestamp) {
    let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(REVIEWED.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}
