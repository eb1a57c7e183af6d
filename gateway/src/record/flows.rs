//! Counters of flows by what they go to. Looked up once per flow, removed with their object, encoded at scrape.

use linkspan_core::api::{names::Target, reason::Reason};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, NoLabelSet},
    metrics::MetricType,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::watch;

/// Which way flows cross this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelValue)]
pub enum Direction {
    /// From local pods into a tunnel.
    #[allow(non_camel_case_types)]
    outbound,
    /// From a tunnel to local pods.
    #[allow(non_camel_case_types)]
    inbound,
}

/// What flows are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct FlowLabels {
    /// Which way.
    pub direction: Direction,
    /// Outbound: the Link. Inbound: the account the caller signs in with.
    pub link: String,
    /// Namespace of the called Service; empty where that is none of ours to name.
    pub namespace: String,
    /// The called Service; empty where that is none of ours to name.
    pub service: String,
    /// Its port, or 0.
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

    /// Labels of what is denied before it is known to go to something that exists: a caller cannot make up labels.
    pub fn nowhere(direction: Direction, link: &str) -> Self {
        let (namespace, service) = Default::default();
        Self { direction, link: link.to_owned(), namespace, service, port: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    #[prometheus(flatten)]
    flow: FlowLabels,
    reason: &'static str,
}

/// What is counted of the flows with the same labels.
#[derive(Debug)]
pub(super) struct Counters {
    /// What the flows have in common.
    pub(super) labels: FlowLabels,
    opened: AtomicU64,
    closed: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    retried: AtomicU64,
    denied: [AtomicU64; Reason::ALL.len()],
    /// The object is gone; the counters go when no flow is open.
    gone: AtomicBool,
}

impl Counters {
    fn of(labels: FlowLabels) -> Arc<Self> {
        Arc::new(Self {
            labels,
            opened: AtomicU64::default(),
            closed: AtomicU64::default(),
            up: AtomicU64::default(),
            down: AtomicU64::default(),
            retried: AtomicU64::default(),
            denied: Default::default(),
            gone: AtomicBool::default(),
        })
    }

    fn open(&self) -> u64 {
        self.opened.load(Relaxed).saturating_sub(self.closed.load(Relaxed))
    }

    pub(super) fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(super) fn denied(&self, reason: Reason) {
        if let Some(count) = self.denied.get(usize::from(reason.code())) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Bytes of one flow, which are counted for all flows of its labels at the same time: a flow that lasts for days
/// shows its bytes while they pass.
#[derive(Debug)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
    all: Arc<Counters>,
}

impl Traffic {
    pub(super) fn new(all: Arc<Counters>) -> Self {
        Self { up: AtomicU64::default(), down: AtomicU64::default(), all }
    }

    /// `bytes` went from the plain side into the channel.
    pub fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Relaxed);
        self.all.up.fetch_add(bytes as u64, Relaxed);
    }

    /// `bytes` went from the channel to the plain side.
    pub fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Relaxed);
        self.all.down.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes so far: from the plain side into the channel, and from the channel to the plain side.
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }
}

/// All flows' counters, by labels.
#[derive(Clone)]
pub(super) struct Flows(Arc<Inner>);

struct Inner {
    table: Mutex<HashMap<FlowLabels, Arc<Counters>>>,
    open: watch::Sender<usize>,
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("open", &*self.0.open.borrow()).finish_non_exhaustive()
    }
}

impl Flows {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { table: Mutex::default(), open: watch::Sender::new(0) }))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<FlowLabels, Arc<Counters>>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of `labels`.
    pub(super) fn get(&self, labels: &FlowLabels) -> Arc<Counters> {
        let mut table = self.table();
        if let Some(counters) = table.get(labels) {
            return counters.clone();
        }
        table.entry(labels.clone()).or_insert_with(|| Counters::of(labels.clone())).clone()
    }

    /// One more flow is open.
    pub(super) fn open(&self, labels: FlowLabels) -> Arc<Counters> {
        let mut table = self.table();
        let counters = match table.get(&labels) {
            Some(counters) => counters.clone(),
            None => table.entry(labels.clone()).or_insert_with(|| Counters::of(labels)).clone(),
        };
        counters.gone.store(false, Relaxed);
        counters.opened.fetch_add(1, Relaxed);
        drop(table);
        self.0.open.send_modify(|n| *n += 1);
        counters
    }

    /// One flow less is open.
    pub(super) fn close(&self, counters: &Counters) {
        let mut table = self.table();
        counters.closed.fetch_add(1, Relaxed);
        if counters.gone.load(Relaxed) && counters.open() == 0 {
            table.remove(&counters.labels);
        }
        drop(table);
        self.0.open.send_modify(|n| *n = n.saturating_sub(1));
    }

    /// How many flows are open.
    pub(super) fn open_count(&self) -> usize {
        *self.0.open.borrow()
    }

    /// Tells of the number of open flows.
    pub(super) fn subscribe(&self) -> watch::Receiver<usize> {
        self.0.open.subscribe()
    }

    /// Removes the counters that `gone` names; those of open flows go with the last of these.
    pub(super) fn forget(&self, gone: impl Fn(&FlowLabels) -> bool) {
        self.table().retain(|labels, counters| {
            let gone = gone(labels);
            counters.gone.store(gone, Relaxed);
            !gone || counters.open() > 0
        });
    }
}

type Read = fn(&FlowLabels, &Counters) -> u64;

/// Towards the called Service is `read` on both sides, so that the two gateways' numbers agree.
fn read(labels: &FlowLabels, counters: &Counters) -> u64 {
    match labels.direction {
        Direction::outbound => counters.up.load(Relaxed),
        Direction::inbound => counters.down.load(Relaxed),
    }
}

fn written(labels: &FlowLabels, counters: &Counters) -> u64 {
    match labels.direction {
        Direction::outbound => counters.down.load(Relaxed),
        Direction::inbound => counters.up.load(Relaxed),
    }
}

const COUNTED: [(&str, &str, Read); 5] = [
    ("tcp_open", "Flows begun.", |_, c| c.opened.load(Relaxed)),
    ("tcp_close", "Flows ended.", |_, c| c.closed.load(Relaxed)),
    ("tcp_read_bytes", "Bytes read from the side that called.", read),
    ("tcp_write_bytes", "Bytes written to the side that called.", written),
    ("linkspan_retries", "Attempts made again for a flow: another endpoint was tried.", |_, c| {
        c.retried.load(Relaxed)
    }),
];

impl Collector for Flows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut rows: Vec<_> = self.table().iter().map(|(l, c)| (l.clone(), c.clone())).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        // What is denied before it goes anywhere is no flow.
        let flows = || rows.iter().filter(|(labels, _)| !labels.service.is_empty());
        for (name, help, value) in COUNTED {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counters) in flows() {
                let value = value(labels, counters);
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        let help = "Flows open now.";
        let mut family = encoder.encode_descriptor("tcp_open_connections", help, None, MetricType::Gauge)?;
        for (labels, counters) in flows() {
            family.encode_family(labels)?.encode_gauge(&counters.open())?;
        }
        let help = "Flows that were not carried to their end.";
        let mut family = encoder.encode_descriptor("linkspan_denied", help, None, MetricType::Counter)?;
        for (flow, counters) in &rows {
            for reason in Reason::ALL {
                let count = counters.denied[usize::from(reason.code())].load(Relaxed);
                if count > 0 {
                    let labels = DeniedLabels { flow: flow.clone(), reason: reason.as_str() };
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    fn labels(service: &str) -> FlowLabels {
        let target = format!("{service}.shop:80").parse().unwrap();
        FlowLabels::new(Direction::inbound, "east", &target)
    }

    fn text(flows: &Flows) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(flows.clone()));
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn bytes_show_while_they_pass() {
        let flows = Flows::new();
        let traffic = Traffic::new(flows.open(labels("web")));
        traffic.add_down(7);
        traffic.add_up(9);
        let shown = text(&flows);
        let set = "{direction=\"inbound\",link=\"east\",namespace=\"shop\",service=\"web\",port=\"80\"}";
        for line in ["tcp_read_bytes_total", "tcp_write_bytes_total"].iter().zip([7, 9]) {
            assert!(shown.contains(&format!("{}{set} {}\n", line.0, line.1)), "{shown}");
        }
        assert!(shown.contains(&format!("tcp_open_connections{set} 1\n")), "{shown}");
        assert_eq!(traffic.bytes(), (9, 7));
    }

    #[test]
    fn counters_go_with_their_object_but_not_before_its_last_flow() {
        let flows = Flows::new();
        let (web, api) = (flows.open(labels("web")), flows.open(labels("api")));
        flows.close(&api);
        flows.forget(|labels| labels.service != "other");
        assert!(text(&flows).contains("web") && !text(&flows).contains("api"));
        flows.close(&web);
        assert!(!text(&flows).contains("web"), "{}", text(&flows));
        // What comes back meanwhile stays.
        let web = flows.open(labels("web"));
        flows.forget(|_| true);
        let second = flows.open(labels("web"));
        flows.close(&web);
        flows.close(&second);
        assert!(text(&flows).contains("tcp_open_total"));
        assert_eq!(flows.open_count(), 0);
    }

    #[test]
    fn every_denial_has_one_reason() {
        let flows = Flows::new();
        for reason in Reason::ALL {
            flows.get(&labels("web")).denied(reason);
            flows.get(&FlowLabels::nowhere(Direction::inbound, "")).denied(reason);
        }
        let shown = text(&flows);
        for reason in Reason::ALL {
            let count = shown.lines().filter(|l| l.ends_with(&format!("reason=\"{reason}\"}} 1"))).count();
            assert_eq!(count, 2, "{shown}");
        }
    }
}
