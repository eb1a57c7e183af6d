//! In which order endpoints are tried: those meant for this zone before others, those that are out last; of the
//! first ones the less loaded of two at random. Pure.

use std::net::SocketAddr;

/// An endpoint that may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether its slice means it for this gateway's zone.
    pub near: bool,
}

/// What is known of an endpoint at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many flows it has from here.
    pub load: usize,
    /// Whether it did not answer lately.
    pub out: bool,
}

/// Orders `candidates` for one flow; `die(n)` throws a number below `n`, which is at least 1.
pub fn order(
    mut candidates: Vec<Candidate>,
    standing: impl Fn(&SocketAddr) -> Standing,
    mut die: impl FnMut(usize) -> usize,
) -> Vec<SocketAddr> {
    for i in (1..candidates.len()).rev() {
        candidates.swap(i, die(i + 1).min(i));
    }
    // Stable: each class keeps its random order.
    let class = |c: &Candidate| (standing(&c.address).out, !c.near);
    candidates.sort_by_cached_key(class);
    if let [first, second, ..] = &mut candidates[..]
        && class(first) == class(second)
        && standing(&second.address).load < standing(&first.address).load
    {
        std::mem::swap(first, second);
    }
    candidates.into_iter().map(|c| c.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(n: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n as u8], 80))
    }

    proptest! {
        #[test]
        fn all_are_tried_once_near_before_far_out_last_and_the_less_loaded_of_two_first(
            all in prop::collection::vec((0usize..5, any::<bool>(), any::<bool>()), 0..8),
            throws in prop::collection::vec(any::<usize>(), 8),
        ) {
            let candidates: Vec<_> =
                all.iter().enumerate().map(|(n, (_, _, near))| Candidate { address: address(n), near: *near }).collect();
            let index = |a: &SocketAddr| (0..all.len()).find(|n| address(*n) == *a).unwrap();
            let standing = |a: &SocketAddr| { let (load, out, _) = all[index(a)]; Standing { load, out } };
            let class = |a: &SocketAddr| (standing(a).out, !all[index(a)].2);
            let mut throws = throws.into_iter();
            let ordered = order(candidates, standing, |n| throws.next().unwrap() % n);
            prop_assert!(ordered.windows(2).all(|w| class(&w[0]) <= class(&w[1])));
            if let [first, second, ..] = ordered[..] && class(&first) == class(&second) {
                prop_assert!(standing(&first).load <= standing(&second).load);
            }
            let mut sorted = ordered;
            sorted.sort();
            prop_assert_eq!(sorted, (0..all.len()).map(address).collect::<Vec<_>>());
        }
    }

    #[test]
    fn two_random_choices_even_out() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut loads = [0usize; 10];
        for _ in 0..10_000 {
            let all = (0..10).map(|n| Candidate { address: address(n), near: false }).collect();
            let standing = |a: &SocketAddr| {
                let n = (0..10).find(|n| address(*n) == *a).unwrap();
                Standing { load: loads[n], out: false }
            };
            let first = order(all, standing, |n| rng.random_range(0..n))[0];
            loads[(0..10).find(|n| address(*n) == first).unwrap()] += 1;
        }
        assert!(loads.iter().all(|n| n.abs_diff(1000) < 20), "{loads:?}");
    }
}
