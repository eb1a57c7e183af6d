//! What is counted while the controller works; `shown` is what `/metrics` makes of it.

mod credentials;
mod shown;

pub use shown::Shown;

use crate::snapshot::Key;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linkspan_core::api::{gateway_report::LinkHealth, labels::CLUSTER_NAME};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::time::Instant;

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
        let mut links = lock(&self.0);
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
        *lock(&self.0).entry((verb, kind.to_owned())).or_default() += 1;
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
            *lock(&self.repairs).entry(link.to_owned()).or_default() += 1;
        }
    }
}

/// Watches that broke, by what they watch.
#[derive(Debug, Default)]
pub struct Watches(Mutex<BTreeMap<&'static str, u64>>);

impl Watches {
    /// A watch of `what` broke and begins anew.
    pub fn broke(&self, what: &'static str) {
        *lock(&self.0).entry(what).or_default() += 1;
    }
}

/// Upper bounds in seconds of the time from what is heard to what is written.
const LAG_BOUNDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// How soon what target clusters say is written here.
#[derive(Debug, Default)]
pub struct Lags {
    waiting: Mutex<BTreeMap<Key, (String, Instant)>>,
    links: Mutex<BTreeMap<String, Lag>>,
}

#[derive(Clone, Debug, Default)]
struct Lag {
    buckets: [u64; LAG_BOUNDS.len() + 1],
    sum: f64,
}

impl Lags {
    /// At `now` link `link` brought news that matter to `names`.
    pub fn heard(&self, link: &str, names: Vec<Key>, now: Instant) {
        let mut waiting = lock(&self.waiting);
        for name in names {
            waiting.entry(name).or_insert_with(|| (link.to_owned(), now));
        }
    }

    /// At `now` what stands under `name` is as it should be; `written`: because something was written.
    pub fn settled(&self, name: &Key, written: bool, now: Instant) {
        let Some((link, heard)) = lock(&self.waiting).remove(name) else { return };
        if written {
            let seconds = now.duration_since(heard).as_secs_f64();
            let bucket = LAG_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(LAG_BOUNDS.len());
            let mut links = lock(&self.links);
            let lag = links.entry(link).or_default();
            lag.buckets[bucket] += 1;
            lag.sum += seconds;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
