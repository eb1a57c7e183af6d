//! Round trips of the last probes. Pure.

use std::{collections::VecDeque, time::Duration};

/// How many round trips are kept.
const KEPT: usize = 100;

/// The last round trips.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    last: VecDeque<Duration>,
}

impl Latency {
    /// One more.
    pub fn add(&mut self, round_trip: Duration) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(round_trip);
    }

    /// 50th, 95th and 99th percentile in milliseconds; `None` before the first.
    pub fn percentiles_ms(&self) -> Option<[f64; 3]> {
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(rank).map(|d| millis(*d))
        };
        Some([at(50)?, at(95)?, at(99)?])
    }
}

/// Milliseconds with three digits after the point.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_hundred() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles_ms(), None);
        latency.add(Duration::from_secs(9));
        assert_eq!(latency.percentiles_ms(), Some([9000.0; 3]));
        for ms in 1..=100 {
            latency.add(Duration::from_millis(ms));
        }
        assert_eq!(latency.percentiles_ms(), Some([50.0, 95.0, 99.0]));
    }
}
