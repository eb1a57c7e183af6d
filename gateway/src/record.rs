//! One record per flow, closed by `Drop`: log and counters cannot disagree, and a cancelled task is counted too.
//!
//! Label sets are bounded: they name Links, link accounts, and Services that slices or exports name; they are
//! removed with their object ([`Metrics::forget`]).

use crate::splice::Traffic;
use linkspan_core::api::{names::Target, reason::Reason};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Which way flows cross this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Direction {
    /// From local pods into a tunnel.
    #[allow(non_camel_case_types)]
    outbound,
    /// From a tunnel to local pods.
    #[allow(non_camel_case_types)]
    inbound,
}

/// What flows are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FlowLabels {
    /// Which way.
    pub direction: Direction,
    /// Outbound: the Link. Inbound: the account the caller signs in with.
    pub link: String,
    /// Namespace of the called Service.
    pub namespace: String,
    /// The called Service.
    pub service: String,
    /// Its port.
    pub port: u16,
}

impl FlowLabels {
    /// Labels of flows to `target`.
    pub fn new(direction: Direction, link: &str, target: &Target) -> Self {
        Self {
            direction,
            link: link.to_owned(),
            namespace: target.namespace.clone(),
            service: target.service.clone(),
            port: target.port,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    direction: Direction,
    link: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    link: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    link: String,
    result: &'static str,
}

/// Everything this gateway counts.
#[derive(Clone)]
pub struct Metrics {
    opened: Family<FlowLabels, Counter>,
    closed: Family<FlowLabels, Counter>,
    open: Family<FlowLabels, Gauge>,
    read: Family<FlowLabels, Counter>,
    written: Family<FlowLabels, Counter>,
    denied: Family<DeniedLabels, Counter>,
    dials: Family<ProbeLabels, Counter>,
    handshakes: Family<LinkLabels, Histogram, fn() -> Histogram>,
    connections: Family<LinkLabels, Gauge>,
    alive: Family<LinkLabels, Gauge>,
    probes: Family<ProbeLabels, Counter>,
    probe_latency: Family<LinkLabels, Gauge<f64, AtomicU64>>,
    known: Arc<Mutex<HashMap<FlowLabels, usize>>>,
    open_flows: watch::Sender<usize>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let buckets: fn() -> Histogram =
            || Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]);
        Self {
            opened: Family::default(),
            closed: Family::default(),
            open: Family::default(),
            read: Family::default(),
            written: Family::default(),
            denied: Family::default(),
            dials: Family::default(),
            handshakes: Family::new_with_constructor(buckets),
            connections: Family::default(),
            alive: Family::default(),
            probes: Family::default(),
            probe_latency: Family::default(),
            known: Arc::default(),
            open_flows: watch::Sender::new(0),
        }
    }

    /// Names everything for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tcp_open", "Flows begun", self.opened.clone());
        registry.register("tcp_close", "Flows ended", self.closed.clone());
        registry.register("tcp_open_connections", "Flows open now", self.open.clone());
        registry.register("tcp_read_bytes", "Bytes read from the side that called", self.read.clone());
        registry.register("tcp_write_bytes", "Bytes written to the side that called", self.written.clone());
        registry.register("linkspan_denied", "Flows that were not carried to their end", self.denied.clone());
        registry.register("linkspan_tunnel_dials", "Tunnel connections tried", self.dials.clone());
        registry.register_with_unit(
            "linkspan_tunnel_handshake",
            "Time until a tunnel connection can be used",
            Unit::Seconds,
            self.handshakes.clone(),
        );
        registry.register(
            "linkspan_tunnel_connections",
            "Tunnel connections by Link",
            self.connections.clone(),
        );
        registry.register(
            "linkspan_link_alive",
            "Whether the Link's gateway answers probes",
            self.alive.clone(),
        );
        registry.register("linkspan_probes", "Probes of Links' gateways", self.probes.clone());
        registry.register(
            "linkspan_probe_latency_ms",
            "Round trip of the last successful probe",
            self.probe_latency.clone(),
        );
    }

    /// A flow that is not carried, or ended early.
    pub fn denied(&self, direction: Direction, link: &str, reason: Reason) {
        let labels = DeniedLabels { direction, link: link.to_owned(), reason: reason.as_str() };
        self.denied.get_or_create(&labels).inc();
    }

    /// A tunnel connection came about after `took`, or did not.
    pub fn dialed(&self, link: &str, outcome: Result<Duration, Reason>) {
        let result = outcome.map_or_else(Reason::as_str, |_| "ok");
        self.dials.get_or_create(&ProbeLabels { link: link.to_owned(), result }).inc();
        if let Ok(took) = outcome {
            self.handshakes.get_or_create(&LinkLabels { link: link.to_owned() }).observe(took.as_secs_f64());
        }
    }

    /// How many flows are open.
    pub fn open_flows(&self) -> usize {
        *self.open_flows.borrow()
    }

    /// Completes when no flow is open.
    pub async fn no_flows(&self) {
        // An error cannot be: the sender is our own.
        let _ = self.open_flows.subscribe().wait_for(|open| *open == 0).await;
    }

    /// How many tunnel connections `link` has.
    pub fn connections(&self, link: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.connections.get_or_create(&LinkLabels { link: link.to_owned() }).set(count);
    }

    /// A probe of `link` took so long, or failed.
    pub fn probed(&self, link: &str, outcome: Result<Duration, Reason>) {
        let result = outcome.map_or_else(Reason::as_str, |_| "ok");
        self.probes.get_or_create(&ProbeLabels { link: link.to_owned(), result }).inc();
        if let Ok(took) = outcome {
            let labels = LinkLabels { link: link.to_owned() };
            self.probe_latency.get_or_create(&labels).set(took.as_secs_f64() * 1000.0);
        }
    }

    /// The verdict on `link`.
    pub fn alive(&self, link: &str, alive: bool) {
        self.alive.get_or_create(&LinkLabels { link: link.to_owned() }).set(i64::from(alive));
    }

    /// Removes what was counted by Link `link`, which is gone.
    pub fn forget_link(&self, link: &str) {
        let labels = LinkLabels { link: link.to_owned() };
        self.handshakes.remove(&labels);
        self.connections.remove(&labels);
        self.alive.remove(&labels);
        self.probe_latency.remove(&labels);
        for result in Reason::ALL.iter().map(|r| r.as_str()).chain(["ok"]) {
            self.dials.remove(&ProbeLabels { link: link.to_owned(), result });
            self.probes.remove(&ProbeLabels { link: link.to_owned(), result });
        }
        for reason in Reason::ALL.map(Reason::as_str) {
            let direction = Direction::outbound;
            self.denied.remove(&DeniedLabels { direction, link: link.to_owned(), reason });
        }
    }

    /// Removes what was counted by labels that `gone` names and that no open flow uses.
    pub fn forget(&self, gone: impl Fn(&FlowLabels) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|labels, open| {
            let keep = *open > 0 || !gone(labels);
            if !keep {
                self.opened.remove(labels);
                self.closed.remove(labels);
                self.open.remove(labels);
                self.read.remove(labels);
                self.written.remove(labels);
            }
            keep
        });
    }

    fn count_open(&self, labels: &FlowLabels, change: impl FnOnce(usize) -> usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let open = known.entry(labels.clone()).or_default();
        *open = change(*open);
    }
}

/// One flow, from when it is known where it goes until it ends.
pub struct Record {
    metrics: Metrics,
    labels: FlowLabels,
    began: Instant,
    caller: String,
    traffic: Arc<Traffic>,
    outcome: Result<(), Reason>,
    detail: String,
}

impl Record {
    /// Begins a flow; `caller` is who calls, for the log.
    pub fn open(metrics: &Metrics, labels: FlowLabels, caller: String) -> Self {
        metrics.count_open(&labels, |n| n + 1);
        metrics.open_flows.send_modify(|n| *n += 1);
        metrics.opened.get_or_create(&labels).inc();
        metrics.open.get_or_create(&labels).inc();
        Self {
            metrics: metrics.clone(),
            labels,
            began: Instant::now(),
            caller,
            traffic: Arc::default(),
            outcome: Err(Reason::Internal),
            detail: "the flow's task was ended".to_owned(),
        }
    }

    /// Where bytes are counted.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The flow ended as it should.
    pub fn finished(&mut self) {
        self.outcome = Ok(());
        self.detail.clear();
    }

    /// The flow ended before its time.
    pub fn failed(&mut self, reason: Reason, detail: impl Into<String>) {
        self.outcome = Err(reason);
        self.detail = detail.into();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (up, down) = (self.traffic.up.load(Ordering::Relaxed), self.traffic.down.load(Ordering::Relaxed));
        // Towards the called Service is `read` on both sides, so that the two gateways' numbers agree.
        let (read, written) = match self.labels.direction {
            Direction::outbound => (up, down),
            Direction::inbound => (down, up),
        };
        self.metrics.read.get_or_create(&self.labels).inc_by(read);
        self.metrics.written.get_or_create(&self.labels).inc_by(written);
        self.metrics.closed.get_or_create(&self.labels).inc();
        self.metrics.open.get_or_create(&self.labels).dec();
        self.metrics.count_open(&self.labels, |n| n.saturating_sub(1));
        self.metrics.open_flows.send_modify(|n| *n = n.saturating_sub(1));
        let FlowLabels { direction, link, namespace, service, port } = &self.labels;
        let reason = self.outcome.map_or_else(Reason::as_str, |()| "ok");
        if let Err(reason) = self.outcome {
            self.metrics.denied(*direction, link, reason);
        }
        tracing::debug!(
            ?direction,
            link,
            namespace,
            service,
            port,
            caller = self.caller,
            reason,
            detail = self.detail,
            bytes_in = read,
            bytes_out = written,
            seconds = self.began.elapsed().as_secs_f64(),
            "flow ended"
        );
    }
}
