//! Keeps the CA's Secret: made once by the leader, read by every replica. Who would rather bring a CA writes that Secret
//! first (`kubectl create secret tls`, cert-manager), or gives the controller a folder with the same two files.

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
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
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

/// Where the CA is told.
type Told = watch::Sender<Option<Arc<CertificateAuthority>>>;

/// How often the files of a CA are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(10);

/// Keeps the CA and tells `current` of it until the shutdown.
pub(super) async fn run(context: IssuerContext, current: Told) {
    match context.ca_dir.clone() {
        Some(folder) => follow_files(context, folder, current).await,
        None => keep_secret(context, current).await,
    }
}

/// Follows the CA in `folder`; nothing is ever written there.
async fn follow_files(context: IssuerContext, folder: PathBuf, current: Told) {
    let (mut known, mut complaint) = (None, String::new());
    loop {
        let folder = folder.clone();
        let read = tokio::task::spawn_blocking(move || read_files(&folder)).await;
        let read = read.unwrap_or_else(|e| Err(CaError::File(CA_CERT.to_owned(), e.to_string())));
        let loaded = match read {
            Ok(kept) if known.as_ref() == Some(&kept) => None,
            Ok(kept) => Some(use_ca(kept, &context, &current)),
            Err(error) => Some(Err(error)),
        };
        match loaded {
            None => {}
            Some(Ok(kept)) => {
                complaint.clear();
                known = Some(kept);
            }
            Some(Err(error)) if error.to_string() == complaint => {}
            Some(Err(error)) => {
                tell_unusable(&error, &current);
                complaint = error.to_string();
            }
        }
        tokio::select! {
            () = context.shutdown.started() => return,
            () = tokio::time::sleep(LOOK_AT_FILES) => {}
        }
    }
}

fn read_files(folder: &Path) -> Result<KeptCa, CaError> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| CaError::File(path.display().to_string(), e.to_string()))
    };
    Ok(KeptCa { certificate: read(CA_CERT)?, key: read(CA_KEY)? })
}

/// Signs by `kept` from now on.
fn use_ca(kept: KeptCa, context: &IssuerContext, current: &Told) -> Result<KeptCa, CaError> {
    let ca = CertificateAuthority::load(&kept, &context.trust_domain, context.clock.now())?;
    tracing::info!(serial = ca.serial(), until = %ca.not_after(), "this cluster's CA can sign");
    current.send_replace(Some(Arc::new(ca)));
    Ok(kept)
}

fn tell_unusable(error: &CaError, current: &Told) {
    let until_then = match *current.borrow() {
        Some(_) => "until then the one before signs",
        None => "until then nothing is signed",
    };
    tracing::error!(%error, until_then, "the CA cannot be used");
}

/// Keeps the Secret.
async fn keep_secret(context: IssuerContext, current: Told) {
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
                let read = secret.as_ref().map(read_secret);
                match read.map(|read| read.and_then(|kept| use_ca(kept, &context, &current))) {
                    Some(Ok(kept)) => {
                        known = Some(kept);
                        backoff.reset();
                    }
                    Some(Err(error)) => {
                        tell_unusable(&error, &current);
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

/// Reads the Secret as this controller, cert-manager or `kubectl create secret tls` writes it. Its `ca.crt`, where there
/// is one, is not looked at: what is above the CA that signs may sign for others.
fn read_secret(secret: &Secret) -> Result<KeptCa, CaError> {
    let data = secret.data.as_ref();
    let text = |key| {
        let bytes = data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(CaError::Missing(key))
    };
    Ok(KeptCa { certificate: text(CA_CERT)?, key: text(CA_KEY)? })
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
