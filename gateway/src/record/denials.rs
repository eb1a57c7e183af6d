//! Which denials are logged: the first few of each link at once, then about one a second, so that nobody fills the
//! log, and nobody's lines are lost for what another does. Pure: the time is passed in.

use crate::{
    rate::{Bucket, Rate},
    record::Direction,
};
use std::collections::HashMap;
use tokio::time::Instant;

/// Lines of one link.
const RATE: Rate = Rate { per_second: 1.0, burst: 5.0 };

/// What was logged lately, by direction and link: as many as there are links.
#[derive(Debug, Default)]
pub(super) struct Denials {
    links: HashMap<(Direction, String), Line>,
}

#[derive(Debug)]
struct Line {
    bucket: Bucket,
    untold: u64,
}

impl Denials {
    /// Whether a denial is logged, and how many before it were not.
    pub(super) fn tell(&mut self, direction: Direction, link: &str, now: Instant) -> Option<u64> {
        let line = self
            .links
            .entry((direction, link.to_owned()))
            .or_insert_with(|| Line { bucket: Bucket::full(RATE, now), untold: 0 });
        if line.bucket.take(now) {
            return Some(std::mem::take(&mut line.untold));
        }
        line.untold += 1;
        None
    }

    /// Forgets what `gone` names.
    pub(super) fn forget(&mut self, gone: impl Fn(Direction, &str) -> bool) {
        self.links.retain(|(direction, link), _| !gone(*direction, link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_link_with_many_denials_is_told_by_numbers_and_hides_no_other() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        let mut tell = |link: &str, after: u64| {
            denials.tell(Direction::inbound, link, now + Duration::from_millis(after))
        };
        let told: Vec<_> = (0..100).map(|_| tell("noisy", 0)).collect();
        assert_eq!(told.iter().filter(|t| t.is_some()).count(), 5);
        assert_eq!(tell("quiet", 0), Some(0));
        assert_eq!(tell("noisy", 1100), Some(95));
        assert_eq!(tell("noisy", 1200), None);
        denials.forget(|_, link| link == "noisy");
        assert_eq!(denials.links.len(), 1);
    }
}
