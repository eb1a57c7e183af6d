//! When a gateway counts as dead or alive. Pure.

/// The verdict on one gateway, from its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    alive: Option<bool>,
    failures: u32,
}

impl Liveness {
    /// The verdict; `None` before there is one.
    pub fn alive(&self) -> Option<bool> {
        self.alive
    }

    /// A probe was answered. Whether the verdict changed.
    pub fn success(&mut self) -> bool {
        self.failures = 0;
        self.alive.replace(true) != Some(true)
    }

    /// A probe failed: after `threshold` in a row the gateway is dead; when there is certainly nobody (`absent`), at
    /// once. Whether the verdict changed.
    pub fn failure(&mut self, threshold: u32, absent: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        (absent || self.failures >= threshold) && self.alive.replace(false) != Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_verdict_is_reported_whichever_it_is() {
        let mut liveness = Liveness::default();
        assert!(!liveness.failure(3, false) && !liveness.failure(3, false));
        assert_eq!(liveness.alive(), None);
        assert!(liveness.failure(3, false), "dead after the threshold");
        assert!(liveness.success(), "alive after the first success");
        assert!(!liveness.success());
        assert!(liveness.failure(3, true), "dead at once when nobody is there");
    }

    proptest! {
        #[test]
        fn flips_only_after_the_threshold(threshold in 1u32..6, outcomes in prop::collection::vec(any::<bool>(), 1..60)) {
            let (mut liveness, mut row) = (Liveness::default(), 0);
            for ok in outcomes {
                let before = liveness.alive();
                row = if ok { 0 } else { row + 1 };
                let changed = if ok { liveness.success() } else { liveness.failure(threshold, false) };
                prop_assert_eq!(changed, before != liveness.alive());
                if ok {
                    prop_assert_eq!(liveness.alive(), Some(true));
                } else if row < threshold {
                    prop_assert_eq!(liveness.alive(), before);
                } else {
                    prop_assert_eq!(liveness.alive(), Some(false));
                }
            }
        }
    }
}
