//! In which order endpoints are tried: the less loaded of two at random, then the others. Pure.

use std::net::SocketAddr;

/// Orders `endpoints` for one flow. `load` is the number of open flows of an endpoint; `die(n)` throws a number below
/// `n`, which is at least 1.
pub fn order(
    mut endpoints: Vec<SocketAddr>,
    load: impl Fn(&SocketAddr) -> usize,
    mut die: impl FnMut(usize) -> usize,
) -> Vec<SocketAddr> {
    for i in (1..endpoints.len()).rev() {
        endpoints.swap(i, die(i + 1).min(i));
    }
    if let [first, second, ..] = &mut endpoints[..]
        && load(second) < load(first)
    {
        std::mem::swap(first, second);
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_are_tried_once_and_the_less_loaded_of_two_first(count in 0u8..8, loads in prop::collection::vec(0usize..5, 8), throws in prop::collection::vec(any::<usize>(), 8)) {
            let all: Vec<SocketAddr> = (0..count).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
            let load = |a: &SocketAddr| all.iter().position(|b| a == b).map_or(0, |i| loads[i]);
            let mut throws = throws.into_iter();
            let ordered = order(all.clone(), load, |n| throws.next().unwrap() % n);
            if let [first, second, ..] = ordered[..] {
                prop_assert!(load(&first) <= load(&second));
            }
            let mut sorted = ordered;
            sorted.sort();
            prop_assert_eq!(sorted, all);
        }
    }
}
