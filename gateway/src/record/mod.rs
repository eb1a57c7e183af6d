//! One record per flow, closed by `Drop`: log and counters cannot disagree, and a cancelled task is counted too.

mod denials;
mod flows;
mod metrics;

pub use flows::{Direction, FlowLabels, Traffic};
pub use metrics::Metrics;

use flows::Counters;
use linkspan_core::api::reason::Reason;
use std::{borrow::Cow, sync::Arc};
use tokio::time::Instant;

/// Longest text of a peer's that is logged.
const LOGGED: usize = 256;

/// One flow, from when it is known where it goes until it ends.
pub struct Record {
    metrics: Metrics,
    counters: Arc<Counters>,
    began: Instant,
    caller: String,
    traffic: Traffic,
    outcome: Result<(), Reason>,
    detail: Cow<'static, str>,
}

impl Record {
    /// Begins a flow; `caller` is who calls, for the log.
    pub fn open(metrics: &Metrics, labels: FlowLabels, caller: String) -> Self {
        let counters = metrics.0.flows.open(labels);
        Self {
            metrics: metrics.clone(),
            traffic: Traffic::new(counters.clone()),
            counters,
            began: Instant::now(),
            caller,
            outcome: Err(Reason::Internal),
            detail: Cow::Borrowed("the flow's task was ended"),
        }
    }

    /// Who calls.
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// Where bytes are counted.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Something was tried again for this flow.
    pub fn retried(&self) {
        self.counters.retried();
    }

    /// The flow ended as it should.
    pub fn finished(&mut self) {
        self.outcome = Ok(());
        self.detail = Cow::Borrowed("");
    }

    /// The flow ended before its time.
    pub fn failed(&mut self, reason: Reason, detail: impl Into<Cow<'static, str>>) {
        self.outcome = Err(reason);
        self.detail = detail.into();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Err(reason) = self.outcome {
            self.counters.denied(reason);
            self.metrics.tell_denial(&self.counters.labels, reason, &self.caller, &self.detail);
        }
        self.metrics.0.flows.close(&self.counters);
        let FlowLabels { direction, link, namespace, service, port } = &self.counters.labels;
        let (up, down) = self.traffic.bytes();
        tracing::debug!(
            ?direction,
            link,
            namespace,
            service,
            port,
            caller = shown(&self.caller),
            reason = self.outcome.map_or_else(Reason::as_str, |()| "ok"),
            detail = &*self.detail,
            bytes_up = up,
            bytes_down = down,
            seconds = self.began.elapsed().as_secs_f64(),
            "flow ended"
        );
    }
}

/// As much of a peer's text as the log needs.
fn shown(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOGGED)).unwrap_or_default()
}
