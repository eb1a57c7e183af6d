//! Which endpoints are out for a while because they did not answer. Pure: the time is passed in.
//!
//! An endpoint that refuses or does not answer is out for [`FIRST`], after each further failure for twice as long,
//! up to [`LONGEST`]. Out means tried last, not never: when all are out, all are tried. One answer and it is back.

use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// How long an endpoint is out after its first failure.
pub const FIRST: Duration = Duration::from_secs(2);
/// How long at most; a failure that is older than this plus the time out counts no more.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Endpoints that failed lately.
#[derive(Debug, Default)]
pub struct Ejections {
    failed: HashMap<SocketAddr, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    until: Instant,
}

impl Ejections {
    /// `endpoint` refused or did not answer. Failures of one moment count once.
    pub fn failed(&mut self, endpoint: SocketAddr, now: Instant) {
        self.failed.retain(|_, one| now < one.until + LONGEST);
        let one = self.failed.entry(endpoint).or_insert(Failed { times: 0, until: now });
        if now < one.until {
            return;
        }
        let out = FIRST.saturating_mul(1 << one.times.min(16)).min(LONGEST);
        *one = Failed { times: one.times + 1, until: now + out };
    }

    /// `endpoint` answered.
    pub fn answered(&mut self, endpoint: &SocketAddr) {
        self.failed.remove(endpoint);
    }

    /// Whether `endpoint` is out.
    pub fn is_out(&self, endpoint: &SocketAddr, now: Instant) -> bool {
        self.failed.get(endpoint).is_some_and(|one| now < one.until)
    }

    /// How many endpoints failed lately and have not answered since.
    pub fn count(&self) -> usize {
        self.failed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    #[test]
    fn out_for_longer_each_time_until_it_answers() {
        let (mut ejections, start) = (Ejections::default(), Instant::now());
        let mut now = start;
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            ejections.failed(endpoint(1), now);
            ejections.failed(endpoint(1), now + Duration::from_millis(10));
            let back = now + Duration::from_secs(seconds);
            assert!(ejections.is_out(&endpoint(1), back - Duration::from_millis(1)), "{seconds}");
            assert!(!ejections.is_out(&endpoint(1), back), "{seconds}");
            now = back;
        }
        assert!(!ejections.is_out(&endpoint(2), start));
        ejections.failed(endpoint(1), now);
        ejections.answered(&endpoint(1));
        assert!(!ejections.is_out(&endpoint(1), now));
        ejections.failed(endpoint(1), now);
        assert!(!ejections.is_out(&endpoint(1), now + FIRST), "it starts anew");
    }

    proptest! {
        #[test]
        fn nobody_is_out_without_a_failure_or_for_longer_than_the_longest(
            steps in prop::collection::vec((0u8..4, any::<bool>(), 0u64..90), 0..100),
        ) {
            let (mut ejections, mut now) = (Ejections::default(), Instant::now());
            let mut last_failure = [None; 4];
            for (who, fails, pause) in steps {
                now += Duration::from_secs(pause);
                if fails {
                    ejections.failed(endpoint(who), now);
                    prop_assert!(ejections.is_out(&endpoint(who), now));
                    last_failure[usize::from(who)] = Some(now);
                } else {
                    ejections.answered(&endpoint(who));
                    last_failure[usize::from(who)] = None;
                }
                for n in 0..4 {
                    if ejections.is_out(&endpoint(n), now) {
                        let failed = last_failure[usize::from(n)];
                        prop_assert!(failed.is_some_and(|at| now.duration_since(at) < LONGEST));
                    }
                }
                prop_assert!(ejections.count() <= 4);
            }
        }
    }
}
