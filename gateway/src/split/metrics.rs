//! What is counted by backend, under Linkerd's names. Labels are bounded: splits name them, and they go with their split.

use crate::split::stats::LastMinute;
use linkspan_core::api::split_report::{BUCKETS_MS, Window};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BackendLabels {
    /// Namespace of the split.
    pub namespace: String,
    /// The apex.
    pub apex: String,
    /// The apex's port.
    pub port: u16,
    /// The backend Service.
    pub backend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Classification {
    #[allow(non_camel_case_types)]
    success,
    #[allow(non_camel_case_types)]
    failure,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    namespace: String,
    apex: String,
    port: u16,
    backend: String,
    classification: Classification,
}

/// Everything that is counted of splits.
#[derive(Clone)]
pub struct SplitMetrics {
    requests: Family<BackendLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    latency: Family<BackendLabels, Histogram, fn() -> Histogram>,
    retries: Family<BackendLabels, Counter>,
    last: Arc<Mutex<HashMap<BackendLabels, LastMinute>>>,
}

impl Default for SplitMetrics {
    fn default() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(BUCKETS_MS);
        Self {
            requests: Family::default(),
            responses: Family::default(),
            latency: Family::new_with_constructor(buckets),
            retries: Family::default(),
            last: Arc::default(),
        }
    }
}

impl SplitMetrics {
    /// Names everything for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "request",
            "Requests sent to a backend; connections where bytes are carried",
            self.requests.clone(),
        );
        registry.register("response", "Answers of a backend by classification", self.responses.clone());
        registry.register(
            "response_latency_ms",
            "Time from request to the head of its answer, milliseconds",
            self.latency.clone(),
        );
        registry.register(
            "linkspan_split_retries",
            "Requests that went to another backend because this one was not reached",
            self.retries.clone(),
        );
    }

    /// A request goes to a backend.
    pub fn request(&self, labels: &BackendLabels) {
        self.requests.get_or_create(labels).inc();
    }

    /// A backend was not reached, and another is tried.
    pub fn retried(&self, labels: &BackendLabels) {
        self.retries.get_or_create(labels).inc();
    }

    /// A backend answered after `took`, or failed.
    pub fn response(&self, labels: &BackendLabels, success: bool, took: Duration) {
        let classification = if success { Classification::success } else { Classification::failure };
        let BackendLabels { namespace, apex, port, backend } = labels.clone();
        self.responses
            .get_or_create(&ResponseLabels { namespace, apex, port, backend, classification })
            .inc();
        self.latency.get_or_create(labels).observe(took.as_secs_f64() * 1000.0);
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.entry(labels.clone()).or_insert_with(|| LastMinute::new(now)).add(now, success, took);
    }

    /// What happened within the last minute.
    pub fn window(&self, labels: &BackendLabels) -> Window {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(labels).map(|l| l.window(Instant::now())).unwrap_or_default()
    }

    /// Removes what was counted of backends that `gone` names.
    pub fn forget(&self, gone: impl Fn(&BackendLabels) -> bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|labels, _| {
            let keep = !gone(labels);
            if !keep {
                self.requests.remove(labels);
                self.latency.remove(labels);
                self.retries.remove(labels);
                for classification in [Classification::success, Classification::failure] {
                    let BackendLabels { namespace, apex, port, backend } = labels.clone();
                    self.responses.remove(&ResponseLabels { namespace, apex, port, backend, classification });
                }
            }
            keep
        });
    }
}
