//! One port of an apex at this gateway: who may be chosen now, and whose turn it is.

use crate::{
    egress::port_table::{PortTable, Route},
    ingress::service_table::ServiceTable,
    probe::board::Board,
    shared::Shared,
    split::{
        choose::keep_to,
        metrics::{BackendLabels, SplitMetrics},
        state::State,
    },
};
use http::HeaderMap;
use linkspan_core::api::{
    split::{Place, Protocol, Remote, SplitPort, SplitRoute},
    split_report::{BackendReport, SplitReport},
};
use linkspan_core::process::shutdown::{self, Shutdown, Trigger};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A split as our slice tells it, at one port of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitAt {
    /// Namespace of the apex.
    pub namespace: String,
    /// All of the split.
    pub route: Arc<SplitRoute>,
    /// The gateway's port.
    pub gateway_port: u16,
}

impl SplitAt {
    pub(super) fn port(&self) -> Option<&SplitPort> {
        self.route.ports.get(&self.gateway_port)
    }
}

/// Where to look what lives.
#[derive(Clone)]
pub struct Sources {
    /// Namespace of this installation.
    pub namespace: String,
    /// Pods of this cluster's Services.
    pub services: Arc<Shared<ServiceTable>>,
    /// Mirrors, and whether they are ready.
    pub ports: Arc<Shared<PortTable>>,
    /// Links, and whether they live.
    pub board: Board,
}

/// Who serves next.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The backend's place in the list.
    pub index: usize,
    /// What it is counted by.
    pub labels: Arc<BackendLabels>,
    /// Where it is.
    pub to: To,
}

/// Where a backend is.
#[derive(Clone, Debug)]
pub enum To {
    /// One of these pods, tried in this order.
    Pods(Vec<SocketAddr>),
    /// A linked cluster.
    Remote(Remote),
}

/// Why there is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// All weights are zero.
    NoWeight,
    /// Nobody who has a weight, and was not tried yet.
    NoneLeft,
}

/// What is asked about a request.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
}

/// One port of an apex.
pub struct Port {
    sources: Sources,
    state: Mutex<State>,
    /// Started when the split is over.
    over: (Trigger, Shutdown),
}

impl Port {
    fn new(at: &Arc<SplitAt>, sources: Sources) -> Self {
        let state = Mutex::new(State::new(at, &sources));
        Self { sources, state, over: shutdown::manual() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The split as it is now, and whether it is over.
    pub fn now(&self) -> (Arc<SplitAt>, bool) {
        let state = self.lock();
        (state.at.clone(), state.retired)
    }

    /// Completes when the split is over.
    pub async fn over(&self) {
        self.over.1.started().await;
    }

    /// What is spoken here.
    pub fn protocol(&self) -> Protocol {
        self.lock().at.port().map_or(Protocol::Opaque, |p| p.protocol)
    }

    /// Who serves the request `asked` of `client`, or a connection of it; none of those in `tried`.
    ///
    /// # Errors
    /// When there is nobody.
    pub fn choose(
        &self,
        asked: Option<&Asked<'_>>,
        client: IpAddr,
        tried: &[usize],
    ) -> Result<Choice, Nobody> {
        self.pick(asked, client, tried, tried.is_empty())
    }

    /// Who would serve a connection of `client`; the turn is taken with [`Port::took`], if at all.
    ///
    /// # Errors
    /// When there is nobody.
    pub fn peek(&self, client: IpAddr, tried: &[usize]) -> Result<Choice, Nobody> {
        self.pick(None, client, tried, false)
    }

    /// The backend `index`, which [`Port::peek`] has named, serves.
    pub fn took(&self, index: usize) {
        let mut state = self.lock();
        let weights = state.effective(&self.sources, &[]);
        if index < weights.len() {
            state.chooser.take(index, &weights);
        }
    }

    fn pick(
        &self,
        asked: Option<&Asked<'_>>,
        client: IpAddr,
        tried: &[usize],
        take: bool,
    ) -> Result<Choice, Nobody> {
        let mut state = self.lock();
        state.look(&self.sources);
        let client = state.at.route.affinity.then_some(client);
        let root = state.labels.len();
        if state.retired || !state.selected(asked) {
            if tried.contains(&root) {
                return Err(Nobody::NoneLeft);
            }
            let labels = state.root.clone();
            return Ok(Choice { index: root, labels, to: To::Pods(state.in_order(root, client)) });
        }
        if state.at.port().is_none_or(|p| p.backends.iter().all(|b| b.weight == 0)) {
            return Err(Nobody::NoWeight);
        }
        let effective = state.effective(&self.sources, tried);
        let index = match client {
            Some(client) => keep_to(client, "backends", &effective),
            None if take => state.chooser.next(&effective),
            // A second try, or a look ahead, takes nobody's turn.
            None => state.chooser.clone().next(&effective),
        };
        let index = index.ok_or(Nobody::NoneLeft)?;
        let remote = match &state.at.port().and_then(|p| p.backends.get(index)).map(|b| &b.place) {
            Some(Place::Link(remote)) => Some(remote.clone()),
            _ => None,
        };
        let to = remote.map_or_else(|| To::Pods(state.in_order(index, client)), To::Remote);
        Ok(Choice { index, labels: state.labels[index].clone(), to })
    }

    fn update(&self, at: &Arc<SplitAt>) {
        let mut state = self.lock();
        if state.at == *at && !state.retired {
            return;
        }
        let mut new = State::new(at, &self.sources);
        if new.labels == state.labels {
            // New weights of the same backends: nobody loses what it has gained.
            new.chooser = state.chooser.clone();
        }
        *state = new;
    }

    fn report(&self, metrics: &SplitMetrics) -> Vec<BackendReport> {
        let mut state = self.lock();
        state.look(&self.sources);
        let at = state.at.clone();
        let backends = at.port().map(|p| p.backends.as_slice()).unwrap_or_default();
        let alive: Vec<bool> = (0..backends.len()).map(|i| state.is_alive(i, &self.sources)).collect();
        let sum: u64 = backends.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(b, _)| b.weight).sum();
        let share = |weight: u64, alive: bool| {
            if alive && sum > 0 { weight as f64 / sum as f64 } else { 0.0 }
        };
        let reports =
            backends.iter().zip(&alive).zip(&state.labels).map(|((backend, alive), labels)| BackendReport {
                namespace: at.namespace.clone(),
                split: at.route.split.clone(),
                apex: at.route.apex.clone(),
                port: labels.port,
                backend: backend.service.clone(),
                weight: backend.weight,
                alive: *alive,
                effective: share(backend.weight, *alive),
                window: metrics.window(labels),
            });
        reports.collect()
    }
}

/// All ports of apexes, by port of the gateway.
#[derive(Clone)]
pub struct Ports {
    sources: Sources,
    metrics: SplitMetrics,
    by_port: Arc<Mutex<HashMap<u16, Arc<Port>>>>,
}

impl Ports {
    /// None yet.
    pub fn new(sources: Sources, metrics: SplitMetrics) -> Self {
        Self { sources, metrics, by_port: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u16, Arc<Port>>> {
        self.by_port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the gateway's port leads to.
    pub fn get(&self, gateway_port: u16) -> Option<Arc<Port>> {
        self.lock().get(&gateway_port).cloned()
    }

    /// All that leads anywhere now. What went is over for the connections that are left of it.
    pub fn update(&self, routes: &BTreeMap<u16, Route>) {
        let mut by_port = self.lock();
        by_port.retain(|gateway_port, port| {
            let keep = routes.get(gateway_port).is_some_and(|route| route.split.is_some());
            if !keep {
                port.lock().retired = true;
                port.over.0.start();
            }
            keep
        });
        for (gateway_port, at) in routes.iter().filter_map(|(n, route)| Some((n, route.split.as_ref()?))) {
            let port =
                by_port.entry(*gateway_port).or_insert_with(|| Arc::new(Port::new(at, self.sources.clone())));
            port.update(at);
        }
        let apexes: Vec<Arc<SplitAt>> = by_port.values().map(|port| port.now().0).collect();
        self.metrics.forget(|labels| {
            apexes.iter().all(|at| {
                let known =
                    at.route.ports.values().flat_map(|p| &p.backends).any(|b| b.service == labels.backend);
                let same = at.namespace == labels.namespace && at.route.apex == labels.apex;
                !(same && (known || labels.backend == labels.apex))
            })
        });
    }

    /// What `link-cli stat` shows.
    pub fn report(&self) -> SplitReport {
        let ports: BTreeMap<u16, Arc<Port>> =
            self.lock().iter().map(|(n, port)| (*n, port.clone())).collect();
        SplitReport { backends: ports.values().flat_map(|port| port.report(&self.metrics)).collect() }
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
