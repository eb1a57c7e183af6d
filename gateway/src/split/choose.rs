//! Whose turn it is: smooth weighted round robin. Pure.
//!
//! Each turn every backend gains its weight, the richest is chosen and pays the sum of all. So shares are exact over
//! each full round, at no time further off than a turn per backend, and no backend is chosen more often in a row than
//! the weights explain. A backend of weight zero is never chosen.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

/// What each backend has gained so far.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    gained: Vec<i128>,
}

impl Chooser {
    /// The next by `weights`; `None` when all are zero. A backend may be given weight zero for one turn; what it
    /// gained is forgotten then, so that one that comes back is not flooded.
    pub fn next(&mut self, weights: &[u64]) -> Option<usize> {
        self.gained.resize(weights.len(), 0);
        let mut best: Option<usize> = None;
        for (i, weight) in weights.iter().enumerate() {
            if *weight == 0 {
                self.gained[i] = 0;
                continue;
            }
            self.gained[i] += i128::from(*weight);
            if best.is_none_or(|b| self.gained[i] > self.gained[b]) {
                best = Some(i);
            }
        }
        let total: i128 = weights.iter().map(|w| i128::from(*w)).sum();
        if let Some(best) = best {
            self.gained[best] -= total;
        }
        best
    }
}

impl Chooser {
    /// A turn by `weights` in which `index` was chosen, whoever's it was.
    pub fn take(&mut self, index: usize, weights: &[u64]) {
        self.gained.resize(weights.len(), 0);
        for (gained, weight) in self.gained.iter_mut().zip(weights) {
            *gained += i128::from(*weight);
        }
        let total: i128 = weights.iter().map(|w| i128::from(*w)).sum();
        if let Some(gained) = self.gained.get_mut(index) {
            *gained -= total;
        }
    }
}

/// The one that `client` keeps to by `weights`, whatever others do; `None` when all are zero. When one goes, only its own
/// clients move. `among` names what is chosen among, so that one choice says nothing of the next.
pub fn keep_to(client: IpAddr, among: &str, weights: &[u64]) -> Option<usize> {
    let score = |i: usize, weight: u64| {
        let mut hasher = DefaultHasher::new();
        (client.to_canonical(), among, i).hash(&mut hasher);
        // Uniform in (0, 1): weighted rendezvous hashing.
        let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        weight as f64 / -uniform.ln()
    };
    let positive = weights.iter().enumerate().filter(|(_, w)| **w > 0);
    positive.max_by(|a, b| score(a.0, *a.1).total_cmp(&score(b.0, *b.1))).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(weights: &[u64], count: usize) -> Vec<usize> {
        let mut chooser = Chooser::default();
        (0..count).map(|_| chooser.next(weights).unwrap()).collect()
    }

    #[test]
    fn the_seeds_example_goes_round_in_fives() {
        assert_eq!(turns(&[80, 20], 10), [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn who_was_away_is_not_flooded() {
        let mut chooser = Chooser::default();
        for _ in 0..1000 {
            assert_eq!(chooser.next(&[0, 5]), Some(1));
        }
        let mut run = 0;
        while chooser.next(&[5, 5]) == Some(0) {
            run += 1;
        }
        assert!(run <= 1);
        assert_eq!(chooser.next(&[0, 0]), None);
        assert_eq!(chooser.next(&[]), None);
    }

    proptest! {
        /// Over 2,000 requests each share is met to two points, and far better; zero is never chosen.
        #[test]
        fn shares_are_met(weights in prop::collection::vec(0u64..1_000_000, 1..6)) {
            let total: u64 = weights.iter().sum();
            prop_assume!(total > 0);
            let turns = turns(&weights, 2000);
            for (i, weight) in weights.iter().enumerate() {
                let count = turns.iter().filter(|t| **t == i).count() as f64;
                let share = *weight as f64 / total as f64;
                prop_assert!((count - share * 2000.0).abs() <= weights.len() as f64, "{i}: {count} of {share}");
                prop_assert!(*weight > 0 || count == 0.0);
            }
        }

        /// No run is longer than the weights explain: the heaviest of the others has its turn once in sum / its weight.
        #[test]
        fn runs_are_as_short_as_the_weights_allow(weights in prop::collection::vec(1u64..200, 2..6)) {
            let total: u64 = weights.iter().sum();
            let (mut last, mut run) = (usize::MAX, 0);
            for turn in turns(&weights, 2000) {
                run = if turn == last { run + 1 } else { 1 };
                last = turn;
                let others = weights.iter().enumerate().filter(|(i, _)| *i != turn);
                let explained = total.div_ceil(others.map(|(_, w)| *w).max().unwrap());
                prop_assert!(run <= explained, "{run} of {turn} in a row with {weights:?}");
            }
        }

        /// Whatever lives from turn to turn, only a living one with a weight is chosen, and always one if there is any.
        #[test]
        fn only_the_living_are_chosen(weights in prop::collection::vec(0u64..50, 1..6), lives in prop::collection::vec(any::<u8>(), 100)) {
            let mut chooser = Chooser::default();
            for life in lives {
                let now: Vec<u64> = weights.iter().enumerate().map(|(i, w)| if life >> i & 1 == 1 { *w } else { 0 }).collect();
                match chooser.next(&now) {
                    Some(i) => prop_assert!(now[i] > 0),
                    None => prop_assert!(now.iter().all(|w| *w == 0)),
                }
            }
        }

        #[test]
        fn a_client_moves_only_when_its_backend_goes(ip in any::<u32>(), weights in prop::collection::vec(1u64..50, 2..6), gone in 0usize..6) {
            let client = IpAddr::from(ip.to_be_bytes());
            let kept = keep_to(client, "", &weights).unwrap();
            let mut fewer = weights;
            prop_assume!(gone < fewer.len() && gone != kept);
            fewer[gone] = 0;
            prop_assert_eq!(keep_to(client, "", &fewer), Some(kept));
        }
    }

    #[test]
    fn clients_are_spread_by_weight() {
        let count = (0u32..10_000)
            .filter(|n| keep_to(IpAddr::from((n * 7919).to_be_bytes()), "", &[80, 20]) == Some(0))
            .count();
        assert!((7800..8200).contains(&count), "{count}");
    }
}
