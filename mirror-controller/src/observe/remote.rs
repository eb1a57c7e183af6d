//! A target cluster's side: its published exports, and where its gateway is.

use crate::{
    link::remotes::Remotes,
    metrics::{Lags, Watches},
    observe::watch::{Scope, Seen, follow},
    snapshot::{Key, packed::Packed},
    world::World,
};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use linkspan_core::{
    api::{
        exported_service::ExportedService,
        labels::{GATEWAY, GATEWAY_PORT, GATEWAY_PORT_NAME},
    },
    process::{clock::Clock, clock_skew},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How late a connection to a target cluster that died unseen is noticed.
const NOTICE: Duration = Duration::from_secs(30);
/// How often the target's clock is looked at.
const CLOCK_PERIOD: Duration = Duration::from_secs(60);
/// Longest wait for the answer that tells its time.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose word counts while one Link is followed with old and new credentials at once: of those who listed all that the
/// target exports, the one with the newest.
#[derive(Clone)]
pub struct Turn {
    generation: u64,
    /// Generation of the credentials whose observer counts; 0 before the first.
    current: watch::Sender<u64>,
}

impl Turn {
    /// The turn of who follows with credentials of `generation`, among all that share `current`.
    pub fn new(generation: u64, current: &watch::Sender<u64>) -> Self {
        Self { generation, current: current.clone() }
    }

    /// Takes over, unless somebody with newer credentials has.
    fn take(&self) {
        self.current.send_if_modified(|current| {
            let take = *current < self.generation;
            *current = self.generation.max(*current);
            take
        });
    }

    /// Whether this one counts.
    fn counts(&self) -> bool {
        *self.current.borrow() == self.generation
    }

    /// Whether nobody with newer credentials counts.
    fn is_newest(&self) -> bool {
        *self.current.borrow() <= self.generation
    }

    /// Whether nobody else counts: what this one lacks is lacking.
    fn is_alone(&self) -> bool {
        let current = *self.current.borrow();
        current == 0 || current == self.generation
    }
}

/// Observes the target of one Link.
#[derive(Clone)]
pub struct Observer {
    /// Name of the Link.
    pub link: String,
    /// Namespace of the installation in the target cluster.
    pub namespace: String,
    /// The target's API.
    pub client: Client,
    /// Whether what is observed counts.
    pub turn: Turn,
    /// The snapshot.
    pub world: Arc<World>,
    /// Where the target's state is told.
    pub remotes: Remotes,
    /// Where broken watches are counted.
    pub watches: Arc<Watches>,
    /// Where it is measured how soon what is heard is written.
    pub lags: Arc<Lags>,
    /// The time of day.
    pub clock: Clock,
}

impl Observer {
    /// Watches what the target exports, for ever.
    pub async fn exports(self) {
        let api = Api::<ExportedService>::namespaced(self.client.clone(), &self.namespace);
        let link = &self.link;
        let scope = Scope::default().noticing_within(NOTICE).counted(&self.watches, "exports");
        let keep =
            |e: ExportedService| Some((Key::new(&e.spec.namespace, &e.spec.name), Packed::new(&e.spec)));
        follow(api, scope, keep, |seen| match seen {
            Seen::All(all) => {
                self.turn.take();
                if !self.turn.counts() {
                    return;
                }
                tracing::info!(link, exported = all.len(), "the target cluster's exports were listed");
                self.world.change(|s| s.exports_replace(link, all.into_iter().collect()));
                self.remotes.change(link, |state| state.listed = true);
            }
            Seen::Lost(_) if !self.turn.is_alone() => {}
            Seen::Now(_) | Seen::Gone(_) | Seen::Up if !self.turn.counts() => {}
            Seen::Now((_, export)) => {
                let names = self.world.change(|s| s.export_seen(link, &export.open()));
                self.lags.heard(link, names, Instant::now());
            }
            Seen::Gone((key, _)) => self.world.change(|s| s.export_gone(link, &key)),
            Seen::Begins => {}
            Seen::Up => self.remotes.change(link, |state| {
                if state.connected != Some(true) {
                    tracing::info!(link, "the target cluster's API answers");
                }
                (state.connected, state.lost, state.since) = (Some(true), None, None);
            }),
            Seen::Lost(lost) => {
                let now = self.clock.now();
                self.remotes.change(link, |state| {
                    if state.connected != Some(false) {
                        let (reason, error) = (lost.reason, &lost.message);
                        tracing::warn!(link, reason, error, "the target cluster is not followed");
                    }
                    state.connected = Some(false);
                    state.since.get_or_insert(now);
                    state.lost = Some(lost);
                });
            }
        })
        .await;
    }

    /// Watches where the target's gateway is, for ever.
    pub async fn gateway(self) {
        let api = Api::<Service>::namespaced(self.client.clone(), &self.namespace);
        let set = |addresses| {
            if self.turn.is_newest() {
                self.remotes.change(&self.link, |state| state.gateway_addresses = addresses);
            }
        };
        let scope = Scope::named(GATEWAY).noticing_within(NOTICE).counted(&self.watches, "gateway");
        follow(
            api,
            scope,
            |service| Some(addresses(&service)),
            |seen| match seen {
                Seen::All(all) => set(all.into_iter().next().unwrap_or_default()),
                Seen::Now(addresses) => set(addresses),
                Seen::Gone(_) => set(Vec::new()),
                Seen::Up | Seen::Begins => {}
                Seen::Lost(lost) => {
                    let (link, reason, error) = (&self.link, lost.reason, lost.message);
                    tracing::debug!(link, reason, error, "the target's gateway Service cannot be watched");
                }
            },
        )
        .await;
    }

    /// Compares the target's clock with ours, for ever. One that does not answer keeps what was told last.
    pub async fn clocks(self) {
        loop {
            let asked = timeout(CLOCK_TIMEOUT, clock_skew::of_server(&self.client, &self.clock)).await;
            if let Ok(Ok(Some(skew))) = asked {
                self.remotes.change(&self.link, |state| state.clock_skew_seconds = Some(skew.as_secs()));
            }
            sleep(CLOCK_PERIOD).await;
        }
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
    fn the_newest_credentials_count_once_they_have_listed_everything() {
        let current = watch::Sender::new(0);
        let (old, new) = (Turn::new(1, &current), Turn::new(2, &current));
        assert!(old.is_alone() && !old.counts());
        old.take();
        assert!(old.counts() && !new.counts() && !new.is_alone());
        new.take();
        old.take();
        assert!(new.counts() && !old.counts() && !old.is_alone());
        assert!(new.is_newest() && !old.is_newest());
    }

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
