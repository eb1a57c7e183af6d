//! Keeps the bundle by which one target cluster's gateway is checked: starts from what `link` wrote, then follows what
//! the target publishes.

use crate::{
    credentials::{desk::Desk, finding::Finding},
    issuer::{api_call::follow, certificate::chain},
};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use linkspan_core::api::{
    credentials::{CA_BUNDLE, CA_BUNDLE_CONFIG_MAP, TRUST_DOMAIN},
    identity::TrustDomain,
    names::link_bundle_config_map,
};
use std::pin::{Pin, pin};

/// What is known of the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// What the target publishes: its trust domain and bundle (PEM).
    published: Option<(String, String)>,
    /// What the gateways hold (PEM): the last that was followed.
    held: Option<String>,
    /// What `link` wrote (PEM).
    written: Option<String>,
}

/// The bundle to use and what to say of it. All roots that the target publishes are taken, so that it can change its CA
/// while both are in its bundle.
fn choose(known: &Known, link: &str, expected: &TrustDomain) -> (Option<String>, Finding) {
    let usable = |pem: &String| chain(pem).is_ok_and(|certificates| !certificates.is_empty());
    if let Some((domain, bundle)) = &known.published {
        if domain != expected.as_str() {
            let message = format!(
                "the credentials lead to the cluster with trust domain {domain:?}, but spec.gatewayIdentity of the Link \
                 names {expected}: link that cluster again, or mend the address in the kubeconfig"
            );
            return (None, Finding::Wrong("WrongCluster", message));
        }
        if usable(bundle) {
            return (Some(bundle.clone()), Finding::Fine);
        }
    }
    match known.held.iter().chain(&known.written).find(|pem| usable(pem)) {
        Some(bundle) => (Some(bundle.clone()), Finding::Fine),
        None => {
            let (start, followed) = (link_bundle_config_map(link), CA_BUNDLE_CONFIG_MAP);
            let message = format!(
                "no CA bundle of the target cluster yet: neither in ConfigMap {start} here nor in {followed} there"
            );
            (None, Finding::Pending("NoBundle", message))
        }
    }
}

/// Keeps the bundle until the shutdown.
pub async fn run(desk: Desk) {
    let name = desk.link.name.clone();
    let maps: Api<ConfigMap> = Api::namespaced(desk.context.client.clone(), &desk.context.namespace);
    let mut written = pin!(follow(maps, &link_bundle_config_map(&name)));
    let (mut remote, mut held) = (desk.remote(), desk.context.exchange.held());
    let mut published = published_by(&desk);
    let (mut known, mut written_seen) = (Known::default(), false);
    loop {
        tokio::select! {
            () = desk.context.shutdown.started() => return,
            Some(map) = written.next() => {
                written_seen = true;
                known.written = map.and_then(|map| map.data?.remove(CA_BUNDLE));
            }
            Ok(()) = held.changed() => {}
            Ok(()) = remote.changed() => published = published_by(&desk),
            Some(map) = published.next() => {
                // A bundle that is gone is no reason to trust nobody: what was followed stays.
                if let Some(news) = map.and_then(publication) {
                    known.published = Some(news);
                }
            }
        }
        let Some(holds) = held.borrow_and_update().clone() else { continue };
        if !written_seen {
            continue;
        }
        known.held = holds.bundles.get(&name).cloned();
        let (bundle, finding) = choose(&known, &name, &desk.gateway.trust_domain);
        if let Some(bundle) = bundle {
            desk.context.exchange.want(|wanted| {
                wanted.peers.entry(name.clone()).or_default().bundle = Some(bundle);
            });
        }
        desk.tell(|access| access.findings.bundle = finding);
    }
}

fn publication(map: ConfigMap) -> Option<(String, String)> {
    let mut data = map.data?;
    Some((data.remove(TRUST_DOMAIN)?, data.remove(CA_BUNDLE)?))
}

/// What the target publishes; silent while there is no access.
fn published_by(desk: &Desk) -> Pin<Box<dyn Stream<Item = Option<ConfigMap>> + Send>> {
    match desk.remote().borrow().as_ref() {
        Some(remote) => {
            let api: Api<ConfigMap> = Api::namespaced(remote.client.clone(), &desk.gateway.namespace);
            Box::pin(follow(api, CA_BUNDLE_CONFIG_MAP))
        }
        None => Box::pin(stream::pending()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::test_ca;

    fn domain() -> TrustDomain {
        TrustDomain::of_cluster("west").unwrap()
    }

    #[test]
    fn what_the_target_publishes_goes_before_what_is_held_and_that_before_what_was_written() {
        let (a, b, c) = (test_ca(1).certificate, test_ca(2).certificate, test_ca(3).certificate);
        let mut known = Known::default();
        let chosen = |known: &Known| choose(known, "west", &domain());
        assert!(matches!(chosen(&known), (None, Finding::Pending("NoBundle", _))));
        known.written = Some(a.clone());
        assert_eq!(chosen(&known), (Some(a), Finding::Fine));
        known.held = Some(b.clone());
        assert_eq!(chosen(&known), (Some(b.clone()), Finding::Fine));
        let both = format!("{b}{c}");
        known.published = Some(("west.linkspan".into(), both.clone()));
        assert_eq!(chosen(&known), (Some(both), Finding::Fine), "old and new root while both are published");
        known.published = Some(("west.linkspan".into(), "broken".into()));
        assert_eq!(chosen(&known), (Some(b), Finding::Fine));
    }

    #[test]
    fn another_clusters_bundle_is_not_taken() {
        let published = Some(("north.linkspan".to_owned(), test_ca(1).certificate));
        let known = Known { published, held: Some(test_ca(2).certificate), written: None };
        assert!(matches!(choose(&known, "west", &domain()), (None, Finding::Wrong("WrongCluster", _))));
    }
}
