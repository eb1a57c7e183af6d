//! What `/metrics` shows. Gauges are read at scrape; series of a Link go with the Link.

use super::{
    BOUNDS, Counters, LAG_BOUNDS, Lag, Lags, ProbeCounts, Probes, Watches, Writes, credentials, lock,
};
use crate::{credentials::AccessBoard, issuer::Exchange, link::remotes::Remotes, liveness, world::World};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{fmt, sync::Arc};
use tokio::sync::watch;

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
    /// When this cluster's own certificates end.
    pub exchange: Exchange,
    /// Watches.
    pub watches: Arc<Watches>,
    /// How soon what is heard is written.
    pub lags: Arc<Lags>,
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
    conflicts: u64,
    exports: u64,
    probes: ProbeCounts,
    repairs: u64,
    certificate_ends: Option<f64>,
    lag: Lag,
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let rows = self.rows();
        let gauge = |row: &LinkRow, what: fn(&LinkRow) -> f64| what(row);
        type Gauge = (&'static str, &'static str, fn(&LinkRow) -> f64);
        let gauges: [Gauge; 7] = [
            ("gateway_enabled", "1 for a link with a gateway", |_| 1.0),
            ("gateway_alive", "1 if the link's gateway answers probes", |r| f64::from(u8::from(r.alive))),
            ("gateway_latency", "Latency of the last successful probe in milliseconds", |r| r.latency),
            ("linkspan_link_connected", "1 if the target cluster's API answers", |r| {
                f64::from(u8::from(r.connected))
            }),
            ("linkspan_conflicts", "Services not mirrored because another has their mirror's name", |r| {
                r.conflicts as f64
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
        // Named by Linkerd after its cache: here it is the target's exported Services that are kept.
        let help = "Exported Services of the target cluster that are known";
        let mut metric = encoder.encode_descriptor("service_cache_size", help, None, MetricType::Gauge)?;
        for row in &rows {
            metric.encode_family(&[("cluster", row.link.as_str())])?.encode_gauge(&(row.exports as f64))?;
        }
        let links: Vec<&str> = rows.iter().map(|row| row.link.as_str()).collect();
        credentials::encode(&mut encoder, &links, &self.board, &self.exchange)?;
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
        encode_histogram(&mut metric, &row.link, row.probes.sum, &BOUNDS, &row.probes.buckets)?;
    }
    let help = "Seconds from what a target cluster says to what is written here";
    let name = "linkspan_mirror_lag_seconds";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for row in rows {
        encode_histogram(&mut metric, &row.link, row.lag.sum, &LAG_BOUNDS, &row.lag.buckets)?;
    }
    Ok(())
}

fn encode_histogram(
    metric: &mut MetricEncoder<'_>,
    link: &str,
    sum: f64,
    bounds: &[f64],
    counts: &[u64],
) -> fmt::Result {
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
    let count = counts.iter().sum();
    let labels = [("target_cluster_name", link)];
    let mut family = metric.encode_family(&labels)?;
    family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

impl Shown {
    fn rows(&self) -> Vec<LinkRow> {
        let certificate_ends = |link: &str| {
            let ends = self.board.subscribe(link).borrow().certificate_expires_at;
            ends.map(|t| t.as_second() as f64)
        };
        let probes = lock(&self.probes.0).clone();
        let repairs = lock(&self.counters.repairs).clone();
        let lags = lock(&self.lags.links).clone();
        self.world.read(|snapshot| {
            let links = snapshot.links.items.keys();
            links
                .map(|link| {
                    let liveness = liveness::of_link(&snapshot.pods.items, link);
                    let counts = snapshot.counts(link);
                    LinkRow {
                        alive: liveness.alive == Some(true),
                        latency: liveness.latency_ms.unwrap_or_default(),
                        connected: self.remotes.state(link).connected == Some(true),
                        mirrored: counts.mirrored as u64,
                        failing: counts.failing as u64,
                        conflicts: counts.conflicts as u64,
                        exports: snapshot.remotes.get(link).map_or(0, |r| r.len()) as u64,
                        lag: lags.get(link).cloned().unwrap_or_default(),
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
        let writes = lock(&self.writes.0).clone();
        let mut metric =
            encoder.encode_descriptor("linkspan_writes", "Writes to the API", None, MetricType::Counter)?;
        for ((verb, kind), value) in &writes {
            let labels = [("verb", *verb), ("kind", kind.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
        }
        let watches = lock(&self.watches.0).clone();
        let help = "Watches that broke and began anew";
        let mut metric =
            encoder.encode_descriptor("linkspan_watch_restarts", help, None, MetricType::Counter)?;
        for (what, value) in &watches {
            metric.encode_family(&[("watch", *what)])?.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
        }
        Ok(())
    }
}
