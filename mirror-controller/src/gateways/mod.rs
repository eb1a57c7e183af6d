//! What this cluster's gateway pods say: one stream per pod, from every replica of the controller.
//!
//! [`table`] holds what is known (pure), `stream` reads one pod, this file keeps one stream per pod that the slices of
//! the gateway's Service list.

mod stream;
pub mod table;

use crate::{metrics::Probes, world::World};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use linkspan_core::{
    api::{gateway_report::Event, labels::GATEWAY},
    process::shutdown::Shutdown,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use table::{GatewayPod, GatewayTable, Place};
use tokio::{sync::watch, task::JoinSet};

/// The gateway pods, and who follows them.
pub struct Gateways {
    table: Mutex<GatewayTable>,
    places: watch::Sender<BTreeMap<String, Place>>,
    world: Arc<World>,
    probes: Arc<Probes>,
}

impl Gateways {
    /// No pods yet; what they say goes into `world`, what they measured into `probes`.
    pub fn new(world: Arc<World>, probes: Arc<Probes>) -> Self {
        Self { table: Mutex::default(), places: watch::Sender::default(), world, probes }
    }

    /// The pods are these and no others.
    pub fn place(&self, places: BTreeMap<String, Place>) {
        let mut table = self.lock();
        table.place(places.clone());
        self.publish(&table);
        drop(table);
        self.places.send_if_modified(|known| {
            let differs = *known != places;
            *known = places;
            differs
        });
    }

    fn said(&self, pod: &str, event: Event) {
        let mut table = self.lock();
        if let (Event::State { links, .. }, Some(known)) = (&event, table.pods().get(pod)) {
            self.probes.count(known.report.as_ref().map(|r| &r.links), links);
        }
        if table.said(pod, event) {
            self.publish(&table);
        }
    }

    /// Nothing is heard of `pod`. Whether that is news.
    fn silent(&self, pod: &str) -> bool {
        let mut table = self.lock();
        let news = table.silent(pod);
        if news {
            self.publish(&table);
        }
        news
    }

    fn publish(&self, table: &GatewayTable) {
        let pods: BTreeMap<String, GatewayPod> = table.pods().clone();
        self.world.change(|s| s.pods_reset(pods));
    }

    fn lock(&self) -> MutexGuard<'_, GatewayTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one stream per pod until the shutdown.
pub async fn follow(gateways: Arc<Gateways>, admin_port: u16, shutdown: Shutdown) {
    let mut places = gateways.places.subscribe();
    let mut streams: JoinSet<String> = JoinSet::new();
    let mut running: BTreeMap<String, (BTreeSet<IpAddr>, tokio::task::AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = places.borrow_and_update().clone();
        running.retain(|name, (ips, stream)| {
            let keep = wanted.get(name).is_some_and(|place| place.ips == *ips) && !stream.is_finished();
            if !keep {
                stream.abort();
            }
            keep
        });
        for (name, place) in wanted {
            if let Some(ip) = place.ips.iter().next().copied()
                && !running.contains_key(&name)
            {
                let (gateways, pod) = (gateways.clone(), name.clone());
                let handle = streams.spawn(async move {
                    stream::follow(&gateways, &pod, (ip, admin_port).into()).await;
                    pod
                });
                running.insert(name, (place.ips, handle));
            }
        }
        tokio::select! {
            () = shutdown.started() => return,
            changed = places.changed() => if changed.is_err() { return },
            Some(ended) = streams.join_next() => {
                // A stream ends only when it is aborted, or broke.
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a gateway's stream broke; it is opened anew");
                }
            }
        }
    }
}

/// The pods that the slices of the gateway's Service list, by name.
pub fn places<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeMap<String, Place> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for endpoint in slices.flat_map(|slice| slice.endpoints.iter()) {
        let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok()) else { continue };
        let place = places.entry(pod_name(endpoint, ip)).or_default();
        let condition = |value: Option<bool>, default| value.unwrap_or(default);
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        place.kube_ready |= condition(conditions.ready, true);
        place.terminating |= condition(conditions.terminating, false);
        place.target = place.target.take().or_else(|| endpoint.target_ref.clone());
        place.node = place.node.take().or_else(|| endpoint.node_name.clone());
        place.zone = place.zone.take().or_else(|| endpoint.zone.clone());
        place.ips.insert(ip);
    }
    places
}

/// The pod's name; gateways outside a cluster are told apart by their address.
fn pod_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    let name = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
    name.unwrap_or_else(|| format!("{GATEWAY} at {ip}"))
}
