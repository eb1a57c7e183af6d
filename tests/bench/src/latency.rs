//! Latencies in short.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half are quicker.
    pub(crate) p50: f64,
    /// One in a hundred is slower.
    pub(crate) p99: f64,
    /// One in a thousand is slower.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
    /// How many there were.
    pub(crate) count: u64,
}

/// `None` when there are none.
pub(crate) fn summary(mut latencies: Vec<Duration>) -> Option<Latency> {
    latencies.sort_unstable();
    let max = *latencies.last()?;
    let at = |share: f64| micros(latencies[((latencies.len() - 1) as f64 * share).ceil() as usize]);
    Some(Latency {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(max),
        count: latencies.len() as u64,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let latency = summary((0..=1000).map(Duration::from_micros).collect()).unwrap();
        assert_eq!((latency.p50, latency.p99, latency.p999, latency.max), (500.0, 990.0, 999.0, 1000.0));
        assert_eq!(summary(vec![]), None);
    }
}
