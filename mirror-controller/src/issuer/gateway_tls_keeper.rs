//! Keeps the gateways' Secret and ConfigMap as [`crate::issuer::gateway_tls`] decides: the only writer of both.
//!
//! Each write carries the resource version that the decision was made on; a conflict means to decide anew.

use crate::issuer::{
    IssuerContext,
    api_call::{CallError, call, follow},
    ca::{CaError, CertificateAuthority, LEAF_LIFETIME, Leaf, Usage},
    ca_keeper::CurrentCa,
    certificate::Certificate,
    exchange::Validity,
    gateway_tls::{Plan, State, Texts, desired_gateway_tls, held},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use linkspan_core::{
    api::{
        credentials::{
            CLIENT_KEY, DENIED_SERIALS, GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP, SERVER_CERT, SERVER_KEY,
        },
        identity::Identity,
        labels::FIELD_MANAGER,
    },
    process::backoff::Backoff,
};
use rcgen::KeyPair;
use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Longest time between two looks at what there is.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Why the objects are not as they should be.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Keeps both objects and tells the exchange what they hold, until the shutdown.
///
/// `bundle` is told all CAs that are trusted, once the gateways' own objects say so.
pub(super) async fn run(context: IssuerContext, mut ca: CurrentCa, bundle: watch::Sender<Option<String>>) {
    let mut keeper = Keeper::new(&context, bundle);
    let mut secrets = pin!(follow(keeper.secrets.clone(), GATEWAY_TLS_SECRET));
    let mut maps = pin!(follow(keeper.maps.clone(), GATEWAY_TRUST_CONFIG_MAP));
    let mut leader = context.leader.clone();
    let mut wanted = context.exchange.wanted();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut wait = LOOK_AGAIN;
    loop {
        tokio::select! {
            () = context.shutdown.started() => return,
            Some(_) = secrets.next() => {}
            Some(_) = maps.next() => {}
            Ok(()) = ca.changed() => {}
            Ok(()) = leader.changed() => {}
            Ok(()) = wanted.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        let is_leader = *leader.borrow_and_update();
        let current = ca.borrow_and_update().clone().filter(|_| is_leader);
        wanted.borrow_and_update();
        wait = match keeper.keep(current).await {
            Ok(look_again) => {
                backoff.reset();
                until(look_again, context.clock.now()).min(LOOK_AGAIN)
            }
            Err(KeepError::Call(error)) if error.is_conflict() => backoff.wait(&mut rand::rng()),
            Err(error) => {
                tracing::warn!(%error, "the gateways' key material cannot be kept; trying again");
                backoff.wait(&mut rand::rng())
            }
        };
    }
}

fn until(at: Option<Timestamp>, now: Timestamp) -> Duration {
    at.map_or(LOOK_AGAIN, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

struct Keeper<'a> {
    context: &'a IssuerContext,
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    identity: Identity,
    bundle: watch::Sender<Option<String>>,
    /// The denied serials that were read last: a ConfigMap that is deleted lets nobody in.
    denied: Option<String>,
}

impl<'a> Keeper<'a> {
    fn new(context: &'a IssuerContext, bundle: watch::Sender<Option<String>>) -> Self {
        Self {
            context,
            secrets: Api::namespaced(context.client.clone(), &context.namespace),
            maps: Api::namespaced(context.client.clone(), &context.namespace),
            identity: Identity::gateway(context.trust_domain.clone(), &context.namespace),
            bundle,
            denied: None,
        }
    }

    /// Reads both objects, puts them right where `ca` is given, and tells what they hold. Returns when to look again.
    async fn keep(&mut self, ca: Option<Arc<CertificateAuthority>>) -> Result<Option<Timestamp>, KeepError> {
        let secret = call(self.secrets.get_opt(GATEWAY_TLS_SECRET)).await?;
        let map = call(self.maps.get_opt(GATEWAY_TRUST_CONFIG_MAP)).await?;
        let mut texts = secret.as_ref().map(texts_of).unwrap_or_default();
        let mut trust = map.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
        if map.is_some() {
            self.denied = trust.get(DENIED_SERIALS).cloned();
        } else if let Some(denied) = self.denied.clone() {
            trust.insert(DENIED_SERIALS.to_owned(), denied);
        }
        let Some(ca) = ca else {
            self.tell(&texts, &trust);
            return Ok(None);
        };
        let now = self.context.clock.now();
        let plan = {
            let wanted = self.context.exchange.wanted();
            let wanted = wanted.borrow();
            let (ca, identity) = (ca.bundle(), &self.identity);
            let state = State { secret: &texts, trust: &trust, ca, identity, wanted: &wanted };
            desired_gateway_tls(&state, now)
        };
        // Bundles first: a gateway that has a new certificate already knows whom it meets.
        if !plan.trust.is_empty() {
            apply(&mut trust, &plan.trust);
            self.write_trust(map, &trust).await?;
            tracing::info!(keys = ?plan.trust.keys().collect::<Vec<_>>(), "wrote ConfigMap {GATEWAY_TRUST_CONFIG_MAP}");
        }
        if plan.changes_secret() {
            let made = self.carry_out(&plan, &ca, now)?;
            apply(&mut texts, &made);
            self.write_secret(secret, &made).await?;
            let (server, keys) = (plan.server, made.keys().collect::<Vec<_>>());
            tracing::info!(?keys, server, "wrote Secret {GATEWAY_TLS_SECRET}");
        }
        self.bundle.send_if_modified(|told| {
            let differs = told.as_ref() != Some(&plan.bundle);
            *told = Some(plan.bundle);
            differs
        });
        self.tell(&texts, &trust);
        let (ca, server) = (Some(ca.not_after()), plan.server_expires_at.or_else(|| server_end(&texts)));
        self.context.exchange.valid(Validity { ca, server });
        Ok(Some(plan.look_again))
    }

    fn tell(&self, secret: &Texts, trust: &Texts) {
        if let Some(held) = held(secret, trust) {
            self.context.exchange.hold(held);
        }
    }

    /// Makes the keys and certificates of `plan`; returns all changes of the Secret.
    fn carry_out(
        &self,
        plan: &Plan,
        ca: &CertificateAuthority,
        now: Timestamp,
    ) -> Result<BTreeMap<String, Option<String>>, CaError> {
        let mut changes = plan.secret.clone();
        if plan.server.is_some() {
            let key = KeyPair::generate()?;
            let leaf = Leaf {
                identity: &self.identity,
                uid: None,
                usage: Usage::Server,
                public_key: &key,
                lifetime: LEAF_LIFETIME,
                serial: rand::random(),
            };
            changes.insert(SERVER_CERT.to_owned(), Some(ca.sign(&leaf, now)?));
            changes.insert(SERVER_KEY.to_owned(), Some(key.serialize_pem()));
        }
        if plan.client_key {
            changes.insert(CLIENT_KEY.to_owned(), Some(KeyPair::generate()?.serialize_pem()));
        }
        Ok(changes)
    }

    async fn write_secret(
        &self,
        present: Option<Secret>,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), CallError> {
        let exists = present.is_some();
        let mut secret = present.unwrap_or_else(|| Secret {
            metadata: named(GATEWAY_TLS_SECRET),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        });
        let data = secret.data.get_or_insert_default();
        for (key, text) in changes {
            match text {
                Some(text) => data.insert(key.clone(), ByteString(text.clone().into_bytes())),
                None => data.remove(key),
            };
        }
        if exists {
            call(self.secrets.replace(GATEWAY_TLS_SECRET, &params(), &secret)).await?;
        } else {
            call(self.secrets.create(&params(), &secret)).await?;
        }
        Ok(())
    }

    async fn write_trust(&self, present: Option<ConfigMap>, trust: &Texts) -> Result<(), CallError> {
        let exists = present.is_some();
        let mut map = present.unwrap_or_else(|| ConfigMap {
            metadata: named(GATEWAY_TRUST_CONFIG_MAP),
            ..ConfigMap::default()
        });
        map.data = Some(trust.clone());
        if exists {
            call(self.maps.replace(GATEWAY_TRUST_CONFIG_MAP, &params(), &map)).await?;
        } else {
            call(self.maps.create(&params(), &map)).await?;
        }
        Ok(())
    }
}

fn server_end(secret: &Texts) -> Option<Timestamp> {
    Some(Certificate::first_of(secret.get(SERVER_CERT)?).ok()?.not_after)
}

fn texts_of(secret: &Secret) -> Texts {
    let data = secret.data.iter().flatten();
    data.filter_map(|(key, bytes)| Some((key.clone(), String::from_utf8(bytes.0.clone()).ok()?))).collect()
}

fn apply(texts: &mut Texts, changes: &BTreeMap<String, Option<String>>) {
    for (key, text) in changes {
        match text {
            Some(text) => texts.insert(key.clone(), text.clone()),
            None => texts.remove(key),
        };
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
