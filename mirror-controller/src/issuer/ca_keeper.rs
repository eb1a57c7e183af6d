//! Keeps the CA's Secret: made once by the leader, read by every replica.

use crate::issuer::{
    IssuerContext,
    api_call::{CallError, call, follow},
    ca::{CaError, CertificateAuthority, KeptCa},
};
use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use linkspan_core::{
    api::{
        credentials::{CA_CERT, CA_KEY, CA_SECRET},
        labels::FIELD_MANAGER,
    },
    process::backoff::Backoff,
};
use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The CA, once there is one that can be used.
pub type CurrentCa = watch::Receiver<Option<Arc<CertificateAuthority>>>;

/// What to do about the Secret.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is there: read it.
    Read,
    /// It is not there and never was: make a CA.
    Make,
    /// It was there: put back what was in it, or every link breaks.
    PutBack,
    /// It is not there, and another replica has to make it.
    Wait,
}

fn step(exists: bool, known: bool, leader: bool) -> Step {
    match (exists, known, leader) {
        (true, ..) => Step::Read,
        (false, false, true) => Step::Make,
        (false, true, true) => Step::PutBack,
        (false, _, false) => Step::Wait,
    }
}

/// Keeps the Secret and tells `current` of its CA until the shutdown.
pub(super) async fn run(context: IssuerContext, current: watch::Sender<Option<Arc<CertificateAuthority>>>) {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut secrets = pin!(follow(api.clone(), CA_SECRET));
    let mut leader = context.leader.clone();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let (mut seen, mut known): (Option<Option<Secret>>, Option<KeptCa>) = (None, None);
    let mut retry = None;
    loop {
        tokio::select! {
            () = context.shutdown.started() => return,
            Some(secret) = secrets.next() => seen = Some(secret),
            Ok(()) = leader.changed() => {}
            () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            else => return,
        }
        retry = None;
        let Some(secret) = &seen else { continue };
        let is_leader = *leader.borrow_and_update();
        match step(secret.is_some(), known.is_some(), is_leader) {
            Step::Wait => {}
            Step::Read => {
                let loaded = secret.as_ref().map(|secret| load(secret, &context));
                match loaded {
                    Some(Ok((kept, ca))) => {
                        known = Some(kept);
                        current.send_replace(Some(Arc::new(ca)));
                        backoff.reset();
                    }
                    Some(Err(error)) => {
                        tracing::error!(%error, "the CA cannot be used; nothing is signed by it");
                        // What is wrong may be the time of day.
                        retry = Some(Duration::from_secs(60));
                    }
                    None => {}
                }
            }
            make_or_put_back => {
                let lost = known.as_ref().filter(|_| make_or_put_back == Step::PutBack);
                retry = match create(&api, lost, &context).await {
                    Ok(secret) => {
                        seen = Some(Some(secret));
                        Some(Duration::ZERO)
                    }
                    Err(error) => {
                        tracing::warn!(error, "Secret {CA_SECRET} cannot be made; trying again");
                        Some(backoff.wait(&mut rand::rng()))
                    }
                };
            }
        }
    }
}

fn load(secret: &Secret, context: &IssuerContext) -> Result<(KeptCa, CertificateAuthority), CaError> {
    let data = secret.data.as_ref();
    let text = |key| {
        let bytes = data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(CaError::Missing(key))
    };
    let kept = KeptCa { certificate: text(CA_CERT)?, key: text(CA_KEY)? };
    let ca = CertificateAuthority::load(&kept, &context.trust_domain, context.clock.now())?;
    Ok((kept, ca))
}

/// Creates the Secret, with the CA `lost` or a new one. Where another controller was quicker, its Secret is the one.
async fn create(api: &Api<Secret>, lost: Option<&KeptCa>, context: &IssuerContext) -> Result<Secret, String> {
    let made;
    let kept = match lost {
        Some(kept) => kept,
        None => {
            made = CertificateAuthority::generate(&context.trust_domain, rand::random(), context.clock.now())
                .map_err(|e| e.to_string())?;
            &made
        }
    };
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [(CA_CERT, bytes(&kept.certificate)), (CA_KEY, bytes(&kept.key))];
    let data: BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let secret = Secret {
        metadata: ObjectMeta { name: Some(CA_SECRET.to_owned()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match call(api.create(&params, &secret)).await {
        Ok(secret) => {
            tracing::info!(put_back = lost.is_some(), "made Secret {CA_SECRET}: this cluster's CA");
            Ok(secret)
        }
        Err(CallError::Refused { code: 409, .. }) => {
            call(api.get(CA_SECRET)).await.map_err(|e| e.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_made_once_and_only_by_the_leader() {
        assert_eq!(step(false, false, false), Step::Wait);
        assert_eq!(step(false, true, false), Step::Wait);
        assert_eq!(step(false, false, true), Step::Make);
        assert_eq!(step(false, true, true), Step::PutBack);
        for (known, leader) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(step(true, known, leader), Step::Read);
        }
    }
}
