//! What a port of an apex knows of its backends, and whose turn it is among those that live.

use crate::split::{
    choose::{Chooser, keep_to},
    metrics::BackendLabels,
    port::{Asked, Sources, SplitAt},
};
use linkspan_core::api::{labels::GATEWAY, route_group::Matcher, split::Place};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::sync::watch;

/// The split at one port, its backends, and what lives of them.
pub(super) struct State {
    pub(super) at: Arc<SplitAt>,
    /// The slice is gone: everything goes to the apex's own pods, and connections should end.
    pub(super) retired: bool,
    pub(super) labels: Vec<Arc<BackendLabels>>,
    pub(super) root: Arc<BackendLabels>,
    matchers: Vec<Matcher>,
    pub(super) chooser: Chooser,
    turn: usize,
    services: watch::Receiver<u64>,
    ports: watch::Receiver<u64>,
    /// Pods of each backend, and of the apex at the end; read anew when `services` counts on.
    pods: Vec<Vec<SocketAddr>>,
    /// Whether each linked cluster has endpoints; read anew when `ports` counts on.
    endpoints: Vec<bool>,
}

impl State {
    /// Nothing is known of it yet.
    pub(super) fn new(at: &Arc<SplitAt>, sources: &Sources) -> Self {
        let (mut services, mut ports) = (sources.services.subscribe(), sources.ports.subscribe());
        services.mark_changed();
        ports.mark_changed();
        let port = at.port();
        let labels = |backend: &str| {
            Arc::new(BackendLabels {
                namespace: at.namespace.clone(),
                apex: at.route.apex.clone(),
                port: port.map_or(0, |p| p.port),
                backend: backend.to_owned(),
            })
        };
        let backends = port.map(|p| p.backends.as_slice()).unwrap_or_default();
        // The controller has checked the expressions; one that fails here selects nothing.
        let matchers = port.iter().flat_map(|p| &p.matches).filter_map(|m| m.compile().ok()).collect();
        Self {
            labels: backends.iter().map(|b| labels(&b.service)).collect(),
            root: labels(&at.route.apex),
            matchers,
            chooser: Chooser::default(),
            turn: 0,
            retired: false,
            services,
            ports,
            pods: Vec::new(),
            endpoints: Vec::new(),
            at: at.clone(),
        }
    }

    /// Reads anew what has changed.
    pub(super) fn look(&mut self, sources: &Sources) {
        let Some(port) = self.at.port() else { return };
        let (namespace, apex) = (&self.at.namespace, &self.at.route.apex);
        if self.services.has_changed().unwrap_or(false) {
            self.services.mark_unchanged();
            self.pods = sources.services.read(|table| {
                let never = table.addresses_of(&sources.namespace, GATEWAY);
                let of = |service: &str, name: &str| table.local_endpoints(namespace, service, name, &never);
                let backends = port.backends.iter().map(|backend| match &backend.place {
                    Place::Local(name) => of(&backend.service, name),
                    Place::Link(_) => Vec::new(),
                });
                backends.chain([of(apex, &port.name)]).collect()
            });
        }
        if self.ports.has_changed().unwrap_or(false) {
            self.ports.mark_unchanged();
            self.endpoints = sources.ports.read(|table| {
                let ready = |place: &Place| match place {
                    Place::Link(remote) => table.is_ready(&remote.link, &remote.target),
                    Place::Local(_) => true,
                };
                port.backends.iter().map(|backend| ready(&backend.place)).collect()
            });
        }
    }

    /// Whether the backend `index` can serve.
    pub(super) fn is_alive(&self, index: usize, sources: &Sources) -> bool {
        let Some(backend) = self.at.port().and_then(|p| p.backends.get(index)) else { return false };
        match &backend.place {
            Place::Local(_) => self.pods.get(index).is_some_and(|pods| !pods.is_empty()),
            Place::Link(remote) => {
                self.endpoints.get(index) == Some(&true) && sources.board.is_alive(&remote.link)
            }
        }
    }

    /// The weights of those who live and were not tried; of all who were not tried, when none of them seems to live:
    /// what is known may be old, and somebody who seems dead is better than nobody.
    pub(super) fn effective(&self, sources: &Sources, tried: &[usize]) -> Vec<u64> {
        let backends = self.at.port().map(|p| p.backends.as_slice()).unwrap_or_default();
        let left: Vec<u64> =
            backends.iter().enumerate().map(|(i, b)| if tried.contains(&i) { 0 } else { b.weight }).collect();
        let alive: Vec<u64> =
            left.iter().enumerate().map(|(i, w)| if self.is_alive(i, sources) { *w } else { 0 }).collect();
        if alive.iter().any(|w| *w > 0) { alive } else { left }
    }

    /// Whether the request `asked`, or a connection, is shared out.
    pub(super) fn selected(&self, asked: Option<&Asked<'_>>) -> bool {
        if self.at.port().is_none_or(|p| p.matches.is_empty()) {
            return true;
        }
        asked.is_some_and(|asked| {
            let header = |name: &str| {
                asked.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<&str>>()
            };
            self.matchers.iter().any(|m| m.selects(asked.method, asked.path, header))
        })
    }

    /// Pods in the order in which they are tried: one after the other over all flows, or the client's own first.
    pub(super) fn in_order(&mut self, index: usize, client: Option<IpAddr>) -> Vec<SocketAddr> {
        let mut pods = self.pods.get(index).cloned().unwrap_or_default();
        let first = match client {
            Some(client) => keep_to(client, "pods", &vec![1; pods.len()]).unwrap_or_default(),
            None => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % pods.len().max(1)
            }
        };
        pods.rotate_left(first);
        pods
    }
}
