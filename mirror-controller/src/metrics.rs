//! What `/metrics` shows. Gauges are read at scrape; series of a Link go with the Link.

use crate::{
    credentials::AccessBoard, link::remotes::Remotes, liveness, status::verdict::Verdict, world::World,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linkspan_core::api::{gateway_report::LinkHealth, labels::CLUSTER_NAME};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Upper bounds of the latency histogram in milliseconds.
const BOUNDS: [f64; 25] = [
    1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1000.0, 2000.0,
    3000.0, 4000.0, 5000.0, 10000.0, 20000.0, 30000.0, 40000.0, 50000.0,
];

/// Probes of each link, as the gateway pods report them.
#[derive(Debug, Default)]
pub struct Probes(Mutex<BTreeMap<String, ProbeCounts>>);

/// Probes of one link.
#[derive(Clone, Debug, Default)]
struct ProbeCounts {
    ok: u64,
    failed: u64,
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Probes {
    /// Counts what is new in a pod's report: `before` is its last one, if any.
    pub fn count(&self, before: Option<&BTreeMap<String, LinkHealth>>, now: &BTreeMap<String, LinkHealth>) {
        let Some(before) = before else { return };
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (link, health) in now {
            let counts = links.entry(link.clone()).or_default();
            let old = before.get(link).cloned().unwrap_or_default();
            let ok = added(old.probes_ok, health.probes_ok);
            counts.ok += ok;
            counts.failed += added(old.probes_failed, health.probes_failed);
            if let Some(ms) = health.latency_ms.filter(|_| ok > 0) {
                let bucket = BOUNDS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS.len());
                counts.buckets[bucket] += ok;
                counts.sum += ms * ok as f64;
            }
        }
    }
}

/// How much a pod's counter grew; one that shrank belongs to a pod that started anew.
fn added(old: u64, new: u64) -> u64 {
    new.checked_sub(old).unwrap_or(new)
}

/// Writes to the API, by verb and kind.
#[derive(Debug, Default)]
pub struct Writes(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Writes {
    /// One more.
    pub fn count(&self, verb: &'static str, kind: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((verb, kind.to_owned())).or_default() +=
            1;
    }
}

/// Other counts, by link.
#[derive(Debug, Default)]
pub struct Counters {
    repairs: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// `slice` was written.
    pub fn repaired(&self, slice: &EndpointSlice) {
        if let Some(link) = crate::snapshot::label(&slice.metadata, CLUSTER_NAME) {
            *self
                .repairs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(link.to_owned())
                .or_default() += 1;
        }
    }
}

/// Everything that is shown.
pub struct Shown {
    /// The snapshot.
    pub world: Arc<World>,
    /// How the targets are reached.
    pub remotes: Remotes,
    /// Probes.
    pub probes: Arc<Probes>,
    /// Writes.
    pub writes: Arc<Writes>,
    /// Other counts.
    pub counters: Arc<Counters>,
    /// How far credentials reach.
    pub board: AccessBoard,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

/// One row per link: its name and what is shown of it.
struct LinkRow {
    link: String,
    alive: bool,
    latency: f64,
    connected: bool,
    mirrored: u64,
    failing: u64,
    probes: ProbeCounts,
    repairs: u64,
    certificate_ends: Option<f64>,
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.rows();
        let gauge = |row: &LinkRow, what: fn(&LinkRow) -> f64| what(row);
        type Gauge = (&'static str, &'static str, fn(&LinkRow) -> f64);
        let gauges: [Gauge; 6] = [
            ("gateway_enabled", "1 for a link with a gateway", |_| 1.0),
            ("gateway_alive", "1 if the link's gateway answers probes", |r| f64::from(u8::from(r.alive))),
            ("gateway_latency", "Latency of the last successful probe in milliseconds", |r| r.latency),
            ("linkspan_link_connected", "1 if the target cluster's API answers", |r| {
                f64::from(u8::from(r.connected))
            }),
            ("linkspan_mirrored_services", "Mirrors that stand", |r| r.mirrored as f64),
            ("linkspan_failing_services", "Selected Services without a mirror", |r| r.failing as f64),
        ];
        for (name, help, what) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for row in &rows {
                metric
                    .encode_family(&[("target_cluster_name", row.link.as_str())])?
                    .encode_gauge(&gauge(row, what))?;
            }
        }
        encode_probes(&mut encoder, &rows)?;
        // Named exactly as Linkerd's, which has no suffix; a counter in this format would get one.
        let help = "Slices written because what they should say changed";
        let mut metric =
            encoder.encode_descriptor("service_mirror_endpoint_repairs", help, None, MetricType::Unknown)?;
        for row in &rows {
            let value = row.repairs as f64;
            metric.encode_family(&[("target_cluster_name", row.link.as_str())])?.encode_gauge(&value)?;
        }
        let help = "When the client certificate for the link ends, in seconds since 1970";
        let mut metric = encoder.encode_descriptor(
            "linkspan_certificate_expiry_timestamp_seconds",
            help,
            None,
            MetricType::Gauge,
        )?;
        for row in &rows {
            if let Some(ends) = &row.certificate_ends {
                metric.encode_family(&[("target_cluster_name", row.link.as_str())])?.encode_gauge(ends)?;
            }
        }
        self.encode_process(&mut encoder)
    }
}

fn encode_probes(encoder: &mut DescriptorEncoder<'_>, rows: &[LinkRow]) -> fmt::Result {
    let mut metric =
        encoder.encode_descriptor("gateway_probes", "Probes by outcome", None, MetricType::Unknown)?;
    for row in rows {
        for (successful, value) in [("true", row.probes.ok), ("false", row.probes.failed)] {
            let labels = [("target_cluster_name", row.link.as_str()), ("probe_successful", successful)];
            metric.encode_family(&labels)?.encode_gauge(&(value as f64))?;
        }
    }
    let help = "Latency of successful probes in milliseconds";
    let mut metric =
        encoder.encode_descriptor("gateway_probe_latency_ms", help, None, MetricType::Histogram)?;
    for row in rows {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(row.probes.buckets).collect();
        let count = row.probes.buckets.iter().sum();
        metric.encode_family(&[("target_cluster_name", row.link.as_str())])?.encode_histogram::<NoLabelSet>(
            row.probes.sum,
            count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}

impl Shown {
    fn rows(&self) -> Vec<LinkRow> {
        let probes = self.probes.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let repairs = self.counters.repairs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let certificate_ends = |link: &str| {
            let ends = self.board.subscribe(link).borrow().certificate_expires_at;
            ends.map(|t| t.as_second() as f64)
        };
        self.world.read(|snapshot| {
            let links = snapshot.links.items.keys();
            links
                .map(|link| {
                    let liveness = liveness::of_link(&snapshot.pods.items, link);
                    let verdicts = || snapshot.verdicts(link).map(|(_, verdict)| verdict);
                    LinkRow {
                        alive: liveness.alive == Some(true),
                        latency: liveness.latency_ms.unwrap_or_default(),
                        connected: self.remotes.state(link).connected == Some(true),
                        mirrored: verdicts().filter(|v| v.stands()).count() as u64,
                        failing: verdicts().filter(|v| matches!(v, Verdict::Failed(_))).count() as u64,
                        probes: probes.get(link).cloned().unwrap_or_default(),
                        repairs: repairs.get(link).copied().unwrap_or_default(),
                        certificate_ends: certificate_ends(link),
                        link: link.clone(),
                    }
                })
                .collect()
        })
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (queue, used, size) = self.world.read(|s| {
            let ports = s.ports.as_ref();
            (s.dirty_len() as f64, ports.map_or(0, |p| p.used()) as f64, ports.map_or(0, |p| p.size()) as f64)
        });
        let leads = f64::from(u8::from(*self.leader.borrow()));
        for (name, help, value) in [
            ("linkspan_leader", "1 if this replica writes", leads),
            ("linkspan_reconcile_queue", "Local names that wait to be decided anew", queue),
            ("linkspan_ports_allocated", "Ports of the gateway in use", used),
            ("linkspan_ports_range", "Ports of the gateway there are", size),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let writes = self.writes.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut metric =
            encoder.encode_descriptor("linkspan_writes", "Writes to the API", None, MetricType::Counter)?;
        for ((verb, kind), value) in &writes {
            let labels = [("verb", *verb), ("kind", kind.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
        }
        Ok(())
    }
}
