//! Somebody drops our key from an apex's selector: it is added again, ever more slowly. Pure; time is passed in.

use std::time::Duration;
use tokio::time::Instant;

/// Wait after the first drop, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// After so long without a drop it is forgotten.
const CALM: Duration = Duration::from_secs(600);

/// What happened to our key at one apex.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    held: bool,
    drops: u32,
    last: Option<Instant>,
}

impl Contest {
    /// Whether the key is there now. True when this is the first drop after a calm.
    pub fn seen(&mut self, key: bool, now: Instant) -> bool {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > CALM) {
            (self.drops, self.last) = (0, None);
        }
        let dropped = self.held && !key;
        self.held = key;
        if dropped {
            self.drops += 1;
            self.last = Some(now);
        }
        dropped && self.drops == 1
    }

    /// We took the key away ourselves.
    pub fn released(&mut self) {
        self.held = false;
    }

    /// Whether somebody dropped the key lately.
    pub fn is_contested(&self) -> bool {
        self.drops > 0
    }

    /// When the key may be added.
    pub fn not_before(&self) -> Option<Instant> {
        let last = self.last.filter(|_| !self.held)?;
        let factor = 1u32.checked_shl(self.drops.saturating_sub(1).min(20)).unwrap_or(u32::MAX);
        Some(last + WAIT.0.saturating_mul(factor).min(WAIT.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_drop_doubles_the_wait_up_to_a_bound_and_calm_ends_it() {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        assert!(!contest.seen(false, now) && contest.not_before().is_none(), "not there yet");
        let mut waits = Vec::new();
        for round in 0..12 {
            contest.seen(true, now);
            assert_eq!(contest.seen(false, now), round == 0, "told once");
            let at = contest.not_before().unwrap();
            waits.push(at.duration_since(now).as_secs());
            now = at;
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[11], 300);
        contest.seen(true, now);
        assert!(contest.is_contested());
        contest.seen(true, now + CALM + WAIT.1);
        assert!(!contest.is_contested());
    }

    #[tokio::test(start_paused = true)]
    async fn what_we_take_away_ourselves_is_no_drop() {
        let mut contest = Contest::default();
        contest.seen(true, Instant::now());
        contest.released();
        assert!(!contest.seen(false, Instant::now()) && !contest.is_contested());
    }
}
