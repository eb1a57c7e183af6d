//! Publishes the CA bundle that linked clusters trust this cluster by, and puts right what others change in it.

use crate::issuer::{
    IssuerContext,
    api_call::{CallError, call, follow},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use linkspan_core::{
    api::{
        credentials::{CA_BUNDLE, CA_BUNDLE_CONFIG_MAP, TRUST_DOMAIN},
        identity::TrustDomain,
        labels::FIELD_MANAGER,
    },
    process::backoff::Backoff,
};
use std::{pin::pin, time::Duration};
use tokio::sync::watch;

/// The ConfigMap as it should be, where it is not: `present` with its data replaced.
fn correction(present: Option<&ConfigMap>, bundle: &str, trust_domain: &TrustDomain) -> Option<ConfigMap> {
    let data = [(CA_BUNDLE, bundle), (TRUST_DOMAIN, trust_domain.as_str())];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let is_right = |map: &ConfigMap| {
        map.data.as_ref() == Some(&data) && map.binary_data.as_ref().is_none_or(|d| d.is_empty())
    };
    if present.is_some_and(is_right) {
        return None;
    }
    let name = || ObjectMeta { name: Some(CA_BUNDLE_CONFIG_MAP.to_owned()), ..ObjectMeta::default() };
    Some(ConfigMap {
        metadata: present.map_or_else(name, |map| map.metadata.clone()),
        data: Some(data),
        ..ConfigMap::default()
    })
}

/// Keeps the ConfigMap with `bundle` (PEM), once it is known, until the shutdown.
pub(super) async fn run(context: IssuerContext, mut bundle: watch::Receiver<Option<String>>) {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut maps = pin!(follow(api.clone(), CA_BUNDLE_CONFIG_MAP));
    let mut leader = context.leader.clone();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut seen: Option<Option<ConfigMap>> = None;
    let mut retry = None;
    loop {
        tokio::select! {
            () = context.shutdown.started() => return,
            Some(map) = maps.next() => seen = Some(map),
            Ok(()) = bundle.changed() => {}
            Ok(()) = leader.changed() => {}
            () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            else => return,
        }
        retry = None;
        let is_leader = *leader.borrow_and_update();
        let current = bundle.borrow_and_update().clone();
        let (Some(present), Some(current), true) = (&seen, current, is_leader) else { continue };
        let Some(right) = correction(present.as_ref(), &current, &context.trust_domain) else {
            backoff.reset();
            continue;
        };
        match write(&api, present.is_some(), &right).await {
            Ok(written) => {
                tracing::info!("published the CA bundle in ConfigMap {CA_BUNDLE_CONFIG_MAP}");
                seen = Some(Some(written));
                backoff.reset();
            }
            Err(error) => {
                // After a conflict the watch brings the newer object; this is for everything else.
                tracing::warn!(%error, "ConfigMap {CA_BUNDLE_CONFIG_MAP} cannot be written; trying again");
                retry = Some(backoff.wait(&mut rand::rng()));
            }
        }
    }
}

async fn write(api: &Api<ConfigMap>, exists: bool, map: &ConfigMap) -> Result<ConfigMap, CallError> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    if exists {
        call(api.replace(CA_BUNDLE_CONFIG_MAP, &params, map)).await
    } else {
        call(api.create(&params, map)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_put_right_and_the_rest_kept() {
        let domain = TrustDomain::of_cluster("u1").unwrap();
        let made = correction(None, "PEM", &domain).unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("linkspan-ca-bundle"));
        assert_eq!(correction(Some(&made), "PEM", &domain), None);
        let mut tampered = made.clone();
        tampered.metadata.resource_version = Some("7".into());
        let data = tampered.data.as_mut().unwrap();
        data.insert(CA_BUNDLE.into(), "PEM and one more root".into());
        data.insert("more".into(), "x".into());
        let right = correction(Some(&tampered), "PEM", &domain).unwrap();
        assert_eq!(right.data, made.data);
        assert_eq!(right.metadata.resource_version.as_deref(), Some("7"));
        assert!(correction(Some(&made), "PEM2", &domain).is_some());
    }
}
