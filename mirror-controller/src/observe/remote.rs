//! A target cluster's side: its published exports, and where its gateway is.

use crate::{
    link::remotes::Remotes,
    observe::watch::{Scope, Seen, follow},
    snapshot::Key,
    world::World,
};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use linkspan_core::api::{
    exported_service::ExportedService,
    labels::{GATEWAY, GATEWAY_PORT, GATEWAY_PORT_NAME},
};
use std::{sync::Arc, time::Duration};

/// How late a connection to a target cluster that died unseen is noticed.
const NOTICE: Duration = Duration::from_secs(30);

/// Observes the target of one Link.
#[derive(Clone)]
pub struct Observer {
    /// Name of the Link.
    pub link: String,
    /// Namespace of the installation in the target cluster.
    pub namespace: String,
    /// The target's API.
    pub client: Client,
    /// The snapshot.
    pub world: Arc<World>,
    /// Where the target's state is told.
    pub remotes: Remotes,
}

impl Observer {
    /// Watches what the target exports, for ever.
    pub async fn exports(self) {
        let api = Api::<ExportedService>::namespaced(self.client.clone(), &self.namespace);
        let link = &self.link;
        follow(api, Scope::default().noticing_within(NOTICE), |seen| match seen {
            Seen::All(all) => {
                tracing::info!(link, exported = all.len(), "the target cluster's exports were listed");
                self.world.change(|s| s.exports_reset(link, all.into_iter().map(|e| e.spec).collect()));
                self.remotes.change(link, |state| state.listed = true);
            }
            Seen::Now(export) => self.world.change(|s| s.export_seen(link, export.spec)),
            Seen::Gone(export) => {
                let key = Key::new(export.spec.namespace, export.spec.name);
                self.world.change(|s| s.export_gone(link, &key));
            }
            Seen::Up => self.remotes.change(link, |state| {
                if state.connected != Some(true) {
                    tracing::info!(link, "the target cluster's API answers");
                }
                state.connected = Some(true);
                state.lost = None;
            }),
            Seen::Lost(lost) => self.remotes.change(link, |state| {
                if state.connected != Some(false) {
                    tracing::warn!(
                        link,
                        reason = lost.reason,
                        error = lost.message,
                        "the target cluster is not followed"
                    );
                }
                state.connected = Some(false);
                state.lost = Some(lost);
            }),
        })
        .await;
    }

    /// Watches where the target's gateway is, for ever.
    pub async fn gateway(self) {
        let api = Api::<Service>::namespaced(self.client.clone(), &self.namespace);
        let set = |addresses| self.remotes.change(&self.link, |state| state.gateway_addresses = addresses);
        follow(api, Scope::named(GATEWAY).noticing_within(NOTICE), |seen| match seen {
            Seen::All(all) => set(all.first().map(addresses).unwrap_or_default()),
            Seen::Now(service) => set(addresses(&service)),
            Seen::Gone(_) => set(Vec::new()),
            Seen::Up => {}
            Seen::Lost(lost) => tracing::debug!(
                link = self.link,
                reason = lost.reason,
                error = lost.message,
                "the target's gateway Service cannot be watched"
            ),
        })
        .await;
    }
}

/// Where the gateway Service `service` is reached from outside its cluster.
fn addresses(service: &Service) -> Vec<String> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let named = ports.iter().find(|p| p.name.as_deref() == Some(GATEWAY_PORT_NAME));
    let port = named.map_or(i32::from(GATEWAY_PORT), |p| p.port);
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    let hosts = ingress.iter().filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone()));
    let mut addresses: Vec<String> = hosts
        .map(|host| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
        .collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn addresses_are_those_of_the_load_balancer_at_the_named_port() {
        let service: Service = from_value(json!({
            "spec": {"ports": [{"name": "x", "port": 1}, {"name": "mc-gateway", "port": 4144}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "gw.example"}, {"ip": "2001:db8::1"}]}}
        }))
        .unwrap();
        assert_eq!(addresses(&service), ["192.0.2.7:4144", "[2001:db8::1]:4144", "gw.example:4144"]);
        assert!(addresses(&Service::default()).is_empty());
    }
}
