//! Everything this gateway counts.
//!
//! Label sets are bounded: they name Links, living link accounts, and Services that slices or exports name; never
//! what a caller made up. They are removed with their object ([`Metrics::forget`], [`Metrics::forget_link`]).

use crate::record::{
    denials::Denials,
    flows::{Direction, FlowLabels, Flows},
    shown,
};
use linkspan_core::api::reason::Reason;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    link: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkResultLabels {
    link: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

type Handshakes<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything this gateway counts; clones count together.
#[derive(Clone)]
pub struct Metrics(pub(super) Arc<Counted>);

pub(super) struct Counted {
    pub(super) flows: Flows,
    denials: Arc<Mutex<Denials>>,
    dials: Family<LinkResultLabels, Counter>,
    handshakes: Handshakes<LinkLabels>,
    connections: Family<LinkLabels, Gauge>,
    alive: Family<LinkLabels, Gauge>,
    probes: Family<LinkResultLabels, Counter>,
    probe_latency: Family<LinkLabels, Gauge<f64, AtomicU64>>,
    inbound_handshakes: Family<ResultLabels, Counter>,
    inbound_handshake: Histogram,
    inbound_connections: Family<LinkLabels, Gauge>,
    inbound_rejected: Family<LimitLabels, Counter>,
    ejected: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn handshake_times() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0])
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self(Arc::new(Counted {
            flows: Flows::new(),
            denials: Arc::default(),
            dials: Family::default(),
            handshakes: Family::new_with_constructor(handshake_times),
            connections: Family::default(),
            alive: Family::default(),
            probes: Family::default(),
            probe_latency: Family::default(),
            inbound_handshakes: Family::default(),
            inbound_handshake: handshake_times(),
            inbound_connections: Family::default(),
            inbound_rejected: Family::default(),
            ejected: Gauge::default(),
        }))
    }

    /// Names everything for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.0.flows.clone()));
        registry.register("linkspan_tunnel_dials", "Tunnel connections tried", self.0.dials.clone());
        registry.register_with_unit(
            "linkspan_tunnel_handshake",
            "Time until a tunnel connection can be used",
            Unit::Seconds,
            self.0.handshakes.clone(),
        );
        registry.register(
            "linkspan_tunnel_connections",
            "Tunnel connections by Link",
            self.0.connections.clone(),
        );
        registry.register(
            "linkspan_link_alive",
            "Whether the Link's gateway answers probes",
            self.0.alive.clone(),
        );
        registry.register("linkspan_probes", "Probes of Links' gateways", self.0.probes.clone());
        registry.register(
            "linkspan_probe_latency_ms",
            "Round trip of the last successful probe",
            self.0.probe_latency.clone(),
        );
        registry.register(
            "linkspan_inbound_handshakes",
            "Handshakes of callers by how they ended",
            self.0.inbound_handshakes.clone(),
        );
        registry.register_with_unit(
            "linkspan_inbound_handshake",
            "Time a caller's handshake took",
            Unit::Seconds,
            self.0.inbound_handshake.clone(),
        );
        registry.register(
            "linkspan_inbound_connections",
            "Tunnel connections of callers by their account",
            self.0.inbound_connections.clone(),
        );
        registry.register(
            "linkspan_inbound_rejected",
            "Connections and flows beyond a limit, by the limit",
            self.0.inbound_rejected.clone(),
        );
        registry.register(
            "linkspan_endpoints_ejected",
            "Endpoints that are tried last because they did not answer",
            self.0.ejected.clone(),
        );
    }

    /// A flow that is not carried. `detail` is for the log; `caller` is who calls.
    pub fn denied(&self, labels: &FlowLabels, reason: Reason, caller: &str, detail: &str) {
        self.0.flows.get(labels).denied(reason);
        self.tell_denial(labels, reason, caller, detail);
    }

    /// Logs a denial, unless there are too many of them.
    pub(super) fn tell_denial(&self, labels: &FlowLabels, reason: Reason, caller: &str, detail: &str) {
        if reason == Reason::Internal {
            // A client that resets its connection is daily life.
            return;
        }
        let FlowLabels { direction, link, namespace, service, port } = labels;
        let mut denials = self.0.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let told = denials.tell(*direction, link, Instant::now());
        drop(denials);
        if let Some(before) = told {
            let (caller, detail) = (shown(caller), shown(detail));
            tracing::info!(
                ?direction,
                link,
                namespace,
                service,
                port,
                caller,
                %reason,
                detail,
                not_logged_before = before,
                "not carried"
            );
        }
    }

    /// A tunnel connection came about after `took`, or did not.
    pub fn dialed(&self, link: &str, outcome: Result<Duration, Reason>) {
        let result = outcome.map_or_else(Reason::as_str, |_| "ok");
        self.0.dials.get_or_create(&LinkResultLabels { link: link.to_owned(), result }).inc();
        if let Ok(took) = outcome {
            self.0
                .handshakes
                .get_or_create(&LinkLabels { link: link.to_owned() })
                .observe(took.as_secs_f64());
        }
    }

    /// How many flows are open.
    pub fn open_flows(&self) -> usize {
        self.0.flows.open_count()
    }

    /// Completes when no flow is open.
    pub async fn no_flows(&self) {
        // An error cannot be: the sender is our own.
        let _ = self.0.flows.subscribe().wait_for(|open| *open == 0).await;
    }

    /// How many tunnel connections `link` has.
    pub fn connections(&self, link: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.0.connections.get_or_create(&LinkLabels { link: link.to_owned() }).set(count);
    }

    /// A probe of `link` took so long, or failed.
    pub fn probed(&self, link: &str, outcome: Result<Duration, Reason>) {
        let result = outcome.map_or_else(Reason::as_str, |_| "ok");
        self.0.probes.get_or_create(&LinkResultLabels { link: link.to_owned(), result }).inc();
        if let Ok(took) = outcome {
            let labels = LinkLabels { link: link.to_owned() };
            self.0.probe_latency.get_or_create(&labels).set(took.as_secs_f64() * 1000.0);
        }
    }

    /// The verdict on `link`.
    pub fn alive(&self, link: &str, alive: bool) {
        self.0.alive.get_or_create(&LinkLabels { link: link.to_owned() }).set(i64::from(alive));
    }

    /// A caller's handshake took so long, or failed.
    pub fn shook_hands(&self, outcome: Result<Duration, Reason>) {
        let result = outcome.map_or_else(Reason::as_str, |_| "ok");
        self.0.inbound_handshakes.get_or_create(&ResultLabels { result }).inc();
        if let Ok(took) = outcome {
            self.0.inbound_handshake.observe(took.as_secs_f64());
        }
    }

    /// How many tunnel connections the living account `account` has here.
    pub fn inbound_connections(&self, account: &str, count: usize) {
        let (labels, count) =
            (LinkLabels { link: account.to_owned() }, i64::try_from(count).unwrap_or(i64::MAX));
        if count == 0 {
            self.0.inbound_connections.remove(&labels);
        } else {
            self.0.inbound_connections.get_or_create(&labels).set(count);
        }
    }

    /// A connection or flow was refused because of `limit`.
    pub fn beyond(&self, limit: &'static str) {
        self.0.inbound_rejected.get_or_create(&LimitLabels { limit }).inc();
    }

    /// How many endpoints are tried last now.
    pub fn ejected(&self, count: usize) {
        self.0.ejected.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Removes what was counted by Link `link`, which is gone.
    pub fn forget_link(&self, link: &str) {
        let labels = LinkLabels { link: link.to_owned() };
        self.0.handshakes.remove(&labels);
        self.0.connections.remove(&labels);
        self.0.alive.remove(&labels);
        self.0.probe_latency.remove(&labels);
        for result in Reason::ALL.iter().map(|r| r.as_str()).chain(["ok"]) {
            let labels = LinkResultLabels { link: link.to_owned(), result };
            self.0.dials.remove(&labels);
            self.0.probes.remove(&labels);
        }
        let ours = |direction, of: &str| direction == Direction::outbound && of == link;
        self.0.denials.lock().unwrap_or_else(PoisonError::into_inner).forget(ours);
    }

    /// Removes what was counted by labels that `gone` names; while flows are open, when the last of them ends.
    pub fn forget(&self, gone: impl Fn(&FlowLabels) -> bool) {
        self.0.flows.forget(gone);
    }

    /// Removes what is kept of accounts that do not live.
    pub fn forget_accounts(&self, lives: impl Fn(&str) -> bool) {
        let gone =
            |direction, link: &str| direction == Direction::inbound && !link.is_empty() && !lives(link);
        self.0.denials.lock().unwrap_or_else(PoisonError::into_inner).forget(gone);
    }
}
