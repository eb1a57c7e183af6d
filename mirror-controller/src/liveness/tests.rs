//! Which gateway pods take traffic, from what they report.

use super::*;
use crate::gateways::table::{Place, Report};

fn pod(alive: Option<bool>, heard: bool) -> GatewayPod {
    let health =
        LinkHealth { alive, latency_ms: Some(7.0), reason: Some(Reason::Refused), ..LinkHealth::default() };
    GatewayPod {
        place: Place { kube_ready: true, ..Place::default() },
        report: Some(Report {
            links: BTreeMap::from([("west".to_owned(), health)]),
            bound: BTreeSet::from([10_000]),
            ..Report::default()
        }),
        heard,
    }
}

fn pods(all: impl IntoIterator<Item = GatewayPod>) -> BTreeMap<String, GatewayPod> {
    all.into_iter().enumerate().map(|(i, p)| (format!("gw-{i}"), p)).collect()
}

#[test]
fn a_silent_pod_does_not_serve_unless_all_are_silent() {
    let one = pods([pod(Some(true), false), pod(Some(true), true)]);
    let blind = all_silent(&one);
    assert!(!serves(&one["gw-0"], "west", blind));
    assert!(serves(&one["gw-1"], "west", blind));
    let both = pods([pod(Some(true), false), pod(Some(true), false)]);
    assert!(all_silent(&both) && serves(&both["gw-0"], "west", true));
    let mut ended = pod(Some(true), false);
    ended.place.kube_ready = false;
    assert!(!serves(&ended, "west", true), "kubernetes knows that this one is gone");
}

#[test]
fn a_link_is_alive_when_any_pod_reaches_it_and_dead_when_none_does() {
    assert_eq!(of_link(&pods([pod(Some(false), true), pod(Some(true), true)]), "west").alive, Some(true));
    let dead = of_link(&pods([pod(Some(false), true), pod(None, true)]), "west");
    assert_eq!((dead.alive, dead.reason, dead.latency_ms), (Some(false), Some(Reason::Refused), None));
    assert_eq!(of_link(&pods([pod(None, true)]), "west").alive, None);
    assert_eq!(of_link(&pods([pod(Some(true), true)]), "north").alive, None);
    assert!(of_link(&pods([pod(Some(true), false)]), "west").stale);
}

#[test]
fn conditions_are_written_in_full() {
    let told = |pod: &GatewayPod, usable| {
        let c = conditions(pod, usable);
        (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
    };
    let mut one = pod(Some(true), true);
    assert_eq!(told(&one, true), (true, true, false));
    assert_eq!(told(&one, false), (false, false, false));
    one.place.terminating = true;
    assert_eq!(told(&one, true), (false, true, true));
    assert_eq!(told(&one, false), (false, false, false));
}

#[test]
fn only_what_a_slice_shows_is_touched() {
    let before = pods([pod(Some(true), true)]);
    let mut after = before.clone();
    let report = after.get_mut("gw-0").unwrap().report.as_mut().unwrap();
    report.links.get_mut("west").unwrap().latency_ms = Some(99.0);
    assert_eq!(touched(&before, &after), Touched::default(), "a latency is in no slice");
    let report = after.get_mut("gw-0").unwrap().report.as_mut().unwrap();
    report.bound.insert(10_001);
    report.links.get_mut("west").unwrap().alive = Some(false);
    let change = touched(&before, &after);
    assert_eq!(change.ports, BTreeSet::from([10_001]));
    assert_eq!(change.links, BTreeSet::from(["west".to_owned()]));
    assert!(!change.everything);
    assert!(touched(&before, &BTreeMap::new()).everything);
}
