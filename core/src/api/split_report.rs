//! What a gateway pod says of its splits at `GET :admin/splits`, and what follows from it for people.

use serde::{Deserialize, Serialize};

/// Upper bounds of the latency buckets in milliseconds; one bucket more holds what is slower than all.
pub const BUCKETS_MS: [f64; 26] = [
    1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 70.0, 100.0, 150.0, 200.0, 300.0,
    400.0, 500.0, 700.0, 1_000.0, 2_000.0, 3_000.0, 5_000.0, 10_000.0, 30_000.0,
];

/// What happened within the last minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Requests answered without fault, or connections that ended well.
    pub success: u64,
    /// The others.
    pub failure: u64,
    /// How many took how long, by [`BUCKETS_MS`].
    pub latency: Vec<u64>,
    /// Length of the window in seconds.
    pub seconds: f64,
}

impl Default for Window {
    fn default() -> Self {
        Self { success: 0, failure: 0, latency: vec![0; BUCKETS_MS.len() + 1], seconds: 0.0 }
    }
}

impl Window {
    /// Adds what happened in `other`; the longer time counts.
    pub fn add(&mut self, other: &Window) {
        self.success += other.success;
        self.failure += other.failure;
        for (sum, count) in self.latency.iter_mut().zip(&other.latency) {
            *sum += count;
        }
        self.seconds = self.seconds.max(other.seconds);
    }

    /// Share of success, 0 to 1; `None` when nothing happened.
    pub fn success_rate(&self) -> Option<f64> {
        let all = self.success + self.failure;
        (all > 0).then(|| self.success as f64 / all as f64)
    }

    /// Requests per second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { (self.success + self.failure) as f64 / self.seconds } else { 0.0 }
    }

    /// The latency in milliseconds that the share `quantile` stayed below; between bounds it is estimated linearly.
    pub fn latency_ms(&self, quantile: f64) -> Option<f64> {
        let all: u64 = self.latency.iter().sum();
        let wanted = quantile * all as f64;
        let (mut seen, mut lower) = (0.0, 0.0);
        for (i, count) in self.latency.iter().enumerate().filter(|_| all > 0) {
            let upper = BUCKETS_MS.get(i).copied().unwrap_or(lower);
            let inside = *count as f64;
            if inside > 0.0 && seen + inside >= wanted {
                return Some(lower + (upper - lower) * ((wanted - seen) / inside).clamp(0.0, 1.0));
            }
            (seen, lower) = (seen + inside, upper);
        }
        None
    }
}

/// One backend of one port of an apex, as one gateway pod sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// Namespace of the split.
    pub namespace: String,
    /// The TrafficSplit.
    pub split: String,
    /// The apex.
    pub apex: String,
    /// The apex's port.
    pub port: u16,
    /// The backend.
    pub backend: String,
    /// Its weight in thousandths.
    pub weight: u64,
    /// Whether it can be reached.
    pub alive: bool,
    /// Share of the traffic it gets now, 0 to 1.
    pub effective: f64,
    /// The last minute.
    pub window: Window,
}

/// All that a gateway pod says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// By namespace, apex, port and backend.
    pub backends: Vec<BackendReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut window = Window::default();
        assert_eq!((window.latency_ms(0.5), window.success_rate()), (None, None));
        // 90 took up to 1 ms, 10 between 50 and 70 ms.
        (window.latency[0], window.latency[12]) = (90, 10);
        (window.success, window.failure, window.seconds) = (99, 1, 50.0);
        let p = |q| window.latency_ms(q).unwrap();
        assert!(p(0.5) > 0.5 && p(0.5) <= 1.0);
        assert!(p(0.95) > 50.0 && p(0.95) <= 70.0 && p(0.99) > p(0.95));
        assert_eq!((window.success_rate(), window.per_second()), (Some(0.99), 2.0));
        let mut slow = Window::default();
        *slow.latency.last_mut().unwrap() = 1;
        assert_eq!(slow.latency_ms(0.5), Some(30_000.0), "slower than all bounds");
    }
}
