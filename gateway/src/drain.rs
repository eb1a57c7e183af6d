//! How a gateway leaves: nobody new is sent away before everybody knows, nobody under way is cut before their time.

use crate::{egress::port_table::PortTable, record::Metrics, shared::Shared};
use linkspan_core::process::shutdown::Trigger;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A caller may have sent one more OPEN before it read that this gateway leaves: time for that to arrive.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// New flows are accepted for this long after no slice lists this pod any more.
    pub linger: Duration,
    /// Flows may go on for this long after that.
    pub flows: Duration,
    /// Bound of it all.
    pub total: Duration,
}

impl Drain {
    /// As pods stop, within `total`.
    pub fn within(total: Duration) -> Self {
        Self { linger: Duration::from_secs(10), flows: Duration::from_secs(60), total }
    }
}

/// From the signal on: accepts until no slice sends anybody to pod `pod` and a while longer, then starts `closing` and
/// waits for the flows. What is left when this returns is cut.
pub async fn drain(drain: Drain, pod: &str, ports: &Shared<PortTable>, metrics: &Metrics, closing: Trigger) {
    let began = Instant::now();
    let end = began + drain.total;
    // Flows get half of the time at least, and all of theirs where there is enough.
    let accept_until = (end - drain.flows.min(drain.total)).max(began + drain.total / 2).min(end);
    let unlisted = async {
        let mut changes = ports.subscribe();
        while ports.read(|ports| ports.lists_ready(pod)) && changes.changed().await.is_ok() {}
    };
    let was_unlisted = timeout_at(accept_until, unlisted).await.is_ok();
    sleep_until((Instant::now() + drain.linger).min(accept_until)).await;
    closing.start();
    tracing::info!(
        flows = metrics.open_flows(),
        was_unlisted,
        "no new flows are accepted; waiting for those that are open"
    );
    let quiet = async {
        loop {
            metrics.no_flows().await;
            sleep(GOODBYE).await;
            if metrics.open_flows() == 0 {
                return;
            }
        }
    };
    let _ = timeout_at((Instant::now() + drain.flows).min(end), quiet).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::port_table::SliceRow,
        record::{Direction, FlowLabels, Record},
    };
    use linkspan_core::{api::slice::SliceRoute, process::shutdown};
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    /// One draining gateway with one flow, and a slice that may list it.
    struct Leaving {
        ports: Arc<Shared<PortTable>>,
        metrics: Metrics,
        flow: Option<Record>,
        began: Instant,
        closing: shutdown::Shutdown,
        task: tokio::task::JoinHandle<()>,
    }

    impl Leaving {
        fn start(listed: bool, total: u64) -> Self {
            let (ports, metrics) = (Arc::new(Shared::<PortTable>::default()), Metrics::new());
            let target = "a.b:1".parse().unwrap();
            let labels = FlowLabels::new(Direction::outbound, "west", &target);
            let flow = Some(Record::open(&metrics, labels, String::new()));
            let (trigger, closing) = shutdown::manual();
            let this =
                Self { ports, metrics, flow, began: Instant::now(), closing, task: tokio::spawn(async {}) };
            this.list(listed);
            let (ports, metrics) = (this.ports.clone(), this.metrics.clone());
            let task = tokio::spawn(async move {
                drain(Drain::within(Duration::from_secs(total)), "gw-1", &ports, &metrics, trigger).await;
            });
            Self { task, ..this }
        }

        fn list(&self, listed: bool) {
            let ready_pods = if listed { BTreeSet::from(["gw-1".to_owned()]) } else { BTreeSet::new() };
            let route = SliceRoute { link: "west".to_owned(), ports: BTreeMap::new() };
            let row =
                SliceRow { created: String::new(), route, ready_pods, http: BTreeSet::new(), split: None };
            self.ports.update(|table| table.set("default", "a-west", Some(row)));
        }

        async fn closed_after(&self) -> u64 {
            self.closing.started().await;
            self.began.elapsed().as_secs()
        }

        async fn over_after(self) -> u64 {
            self.task.await.unwrap();
            self.began.elapsed().as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_until_no_slice_lists_it_and_ten_seconds_more() {
        let leaving = Leaving::start(true, 110);
        sleep(Duration::from_secs(20)).await;
        assert!(!leaving.closing.has_started());
        leaving.list(false);
        assert_eq!(leaving.closed_after().await, 30);
        assert_eq!(leaving.over_after().await, 90, "flows have a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn is_over_with_its_last_flow() {
        let mut leaving = Leaving::start(false, 110);
        assert_eq!(leaving.closed_after().await, 10);
        leaving.flow = None;
        assert_eq!(leaving.over_after().await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_unlists_nobody_does_not_hold_it() {
        let leaving = Leaving::start(true, 110);
        assert_eq!(leaving.closed_after().await, 55);
        assert_eq!(leaving.over_after().await, 110);
        let short = Leaving::start(true, 20);
        assert_eq!(short.closed_after().await, 10);
        assert_eq!(short.over_after().await, 20);
    }
}
