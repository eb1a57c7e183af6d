//! Waits between attempts: doubled each time up to a limit, with jitter so that many do not try in step.

use rand::{Rng, RngExt};
use std::time::Duration;

/// Waits between attempts that fail. Never gives up.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// How long to wait before the next attempt: at least half of the current step, at most all of it.
    pub fn wait(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(rng.random_range(0.5..=1.0)).max(self.min / 2)
    }

    /// The attempt succeeded: the next failure starts from the shortest wait.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    proptest! {
        #[test]
        fn every_wait_is_within_bounds(seed: u64, min in 1u64..1000, factor in 1u32..100, attempts in 1usize..40) {
            let (min, mut rng) = (Duration::from_millis(min), StdRng::seed_from_u64(seed));
            let mut backoff = Backoff::new(min, min * factor);
            for _ in 0..attempts {
                let wait = backoff.wait(&mut rng);
                prop_assert!(wait >= min / 2 && wait <= min * factor);
            }
            backoff.reset();
            prop_assert!(backoff.wait(&mut rng) <= min);
        }
    }
}
