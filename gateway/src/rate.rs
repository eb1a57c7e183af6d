//! How often something may happen: a bucket of tokens that fills with time. Pure: the time is passed in.

use tokio::time::Instant;

/// So many a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In the long run.
    pub per_second: f64,
    /// At once, after a pause.
    pub burst: f64,
}

/// What is left of a [`Rate`] at some time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, at: now }
    }

    /// Takes one token. Whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Whether as much is there as can be: nothing is remembered by keeping it.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.rate.burst
    }

    /// When the next token will be there.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.fill(now);
        let missing = (1.0 - self.tokens).max(0.0);
        now + std::time::Duration::from_secs_f64(missing / self.rate.per_second.max(1e-3))
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate.per_second).min(self.rate.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(burst in 1u32..20, per_second in 1u32..100, pauses in prop::collection::vec(0u64..50, 1..200)) {
            let start = Instant::now();
            let rate = Rate { per_second: f64::from(per_second), burst: f64::from(burst) };
            let (mut bucket, mut now, mut taken) = (Bucket::full(rate, start), start, 0.0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                if bucket.take(now) {
                    taken += 1.0;
                } else {
                    prop_assert!(bucket.next(now) >= now);
                    now = bucket.next(now) + Duration::from_micros(1);
                    prop_assert!(bucket.take(now), "a token is there when it was said to be");
                    taken += 1.0;
                }
                let passed = now.duration_since(start).as_secs_f64();
                prop_assert!(taken <= rate.burst + passed * rate.per_second + 1e-6);
            }
            now += Duration::from_secs(60);
            prop_assert!(bucket.is_full(now));
        }
    }
}
