//! No port twice, and allocations that survive a restart.

use super::*;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn mirror(n: u8) -> Key {
    Key::new("default", format!("svc-{n}-west"))
}

fn routes(n: u8, ports: impl IntoIterator<Item = u16>) -> BTreeSet<Route> {
    let target =
        |port| Target { host: None, service: format!("svc-{n}"), namespace: "default".to_owned(), port };
    ports.into_iter().map(|port| Route { link: "west".to_owned(), target: target(port) }).collect()
}

#[test]
fn a_freed_port_rests_and_is_used_again_afterwards() {
    let mut ports = Ports::restore((10, 12), Saved::default(), []);
    let first = ports.settle(&mirror(1), &routes(1, [80]), at(0)).unwrap();
    assert_eq!(first.values().copied().collect::<Vec<_>>(), [10]);
    ports.settle(&mirror(1), &BTreeSet::new(), at(1)).unwrap();
    ports.settle(&mirror(2), &routes(2, [80, 81]), at(2)).unwrap();
    assert_eq!(ports.settle(&mirror(3), &routes(3, [80]), at(600)), Err(Exhausted { size: 3 }));
    let third = ports.settle(&mirror(3), &routes(3, [80]), at(601)).unwrap();
    assert_eq!(third.values().copied().collect::<Vec<_>>(), [10]);
}

#[test]
fn when_not_all_fit_nothing_is_given() {
    let mut ports = Ports::restore((10, 11), Saved::default(), []);
    assert!(ports.settle(&mirror(1), &routes(1, [80, 81, 82]), at(0)).is_err());
    assert_eq!(ports.used(), 0);
}

#[test]
fn of_two_slices_that_claim_one_port_the_first_keeps_it() {
    let route = |n: u8| SliceRoute {
        link: "west".to_owned(),
        ports: BTreeMap::from([(10, format!("svc-{n}.default:80").parse().unwrap())]),
    };
    let (one, two) = (route(1), route(2));
    let slices = [(&mirror(1), &one), (&mirror(2), &two)];
    let mut ports = Ports::restore((10, 20), Saved::default(), slices);
    assert_eq!(ports.owner(10), Some(&mirror(1)));
    assert_eq!(ports.settle(&mirror(2), &routes(2, [80]), at(0)).unwrap().values().next(), Some(&11));
}

#[test]
fn the_cursor_goes_on_after_a_restart() {
    let saved = Saved { cursor: 15, freed: BTreeMap::from([(15, at(0))]) };
    let mut ports = Ports::restore((10, 20), saved, []);
    assert_eq!(ports.settle(&mirror(1), &routes(1, [80]), at(5)).unwrap().values().next(), Some(&16));
}

proptest! {
    /// Whatever is asked for and given back: no port twice, what is held stays, and a restart changes nothing.
    #[test]
    fn no_port_twice_and_stable_over_restarts(
        steps in proptest::collection::vec((0u8..12, proptest::collection::btree_set(80u16..86, 0..4), 0i64..400), 1..60)
    ) {
        let range = (100, 120);
        let mut ports = Ports::restore(range, Saved::default(), []);
        let mut given: BTreeMap<Key, BTreeMap<Route, u16>> = BTreeMap::new();
        let mut now = 0;
        for (n, wanted, passed) in steps {
            now += passed;
            let before = given.get(&mirror(n)).cloned().unwrap_or_default();
            if let Ok(got) = ports.settle(&mirror(n), &routes(n, wanted), at(now)) {
                for (route, port) in &before {
                    prop_assert!(got.get(route).is_none_or(|p| p == port), "what is held stays");
                }
                given.insert(mirror(n), got);
            }
            let mut seen = BTreeSet::new();
            for port in given.values().flat_map(BTreeMap::values) {
                prop_assert!(seen.insert(*port), "port {port} twice");
                prop_assert!((range.0..=range.1).contains(port));
            }
            prop_assert_eq!(ports.used(), seen.len());
        }
        let slices: Vec<(Key, SliceRoute)> = given
            .iter()
            .map(|(key, routes)| {
                let ports = routes.iter().map(|(route, port)| (*port, route.target.clone())).collect();
                (key.clone(), SliceRoute { link: "west".to_owned(), ports })
            })
            .collect();
        let mut restored = Ports::restore(range, ports.saved(at(now)), slices.iter().map(|(k, r)| (k, r)));
        for (key, routes) in given {
            let wanted = routes.keys().cloned().collect();
            prop_assert_eq!(restored.settle(&key, &wanted, at(now)).unwrap(), routes);
        }
    }
}
