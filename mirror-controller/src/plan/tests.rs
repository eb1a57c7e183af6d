//! Any order of events with the same end gives the same objects.

use super::*;
use crate::{
    fixtures::{Api, export, link, now, pod, synced},
    ports::{Ports, Saved},
    snapshot::service_of,
};
use k8s_openapi::api::core::v1::Service;
use linkspan_core::api::slice::SliceRoute;
use proptest::prelude::*;

/// The same state as a process would see it that starts now.
fn restarted(snapshot: &Snapshot, api: &Api) -> Snapshot {
    let mut fresh = Snapshot::default();
    fresh.links_reset(snapshot.links.items.values().cloned().collect());
    fresh.namespaces_reset(snapshot.namespaces.items.keys().cloned());
    fresh.services_reset(api.services.values().cloned().collect());
    fresh.slices_reset(api.slices.values().cloned().collect());
    fresh.pods_reset(snapshot.pods.items.clone());
    let routes: Vec<(Key, SliceRoute)> = api
        .slices
        .values()
        .filter_map(|s| {
            Some((service_of(s)?, SliceRoute::from_annotations(s.metadata.annotations.as_ref()?).ok()?))
        })
        .collect();
    let saved = snapshot.ports.as_ref().map(|p| p.saved(now())).unwrap_or_default();
    fresh.ports = Some(Ports::restore((10_000, 10_100), saved, routes.iter().map(|(k, r)| (k, r))));
    fresh
}

fn users_own(name: &str) -> Service {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "default", "labels": {
            "mirror.linkerd.io/mirrored-service": "true", "mirror.linkerd.io/cluster-name": "west"}},
        "spec": {"ports": [{"port": 1}]}
    }))
    .unwrap()
}

#[test]
fn nothing_is_deleted_before_both_sides_were_listed() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", export("api", &[80]));
    snapshot.export_seen("west", export("old", &[80]));
    api.settle(&mut snapshot);
    let mut fresh = restarted(&snapshot, &api);
    assert!(api.settle(&mut fresh).is_empty(), "the target was not listed");
    fresh.pods_reset(BTreeMap::from([pod(1, &[], [])]));
    let writes = api.settle(&mut fresh);
    assert_eq!(writes.len(), 2, "the gateway died meanwhile: {writes:?}");
    assert!(writes.iter().all(|w| matches!(w, Change::UpdateSlice(_))));
    fresh.exports_reset("west", vec![export("api", &[80])]);
    api.settle(&mut fresh);
    assert_eq!(api.services.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["api-west"]);
    assert_eq!(api.slices.len(), 1);
}

#[test]
fn local_lists_come_first_too() {
    let mut snapshot = Snapshot::default();
    snapshot.links_reset(vec![link("west")]);
    snapshot.exports_reset("west", vec![export("api", &[80])]);
    assert!(Api::default().settle(&mut snapshot).is_empty());
}

#[test]
fn mirrors_of_a_link_that_is_gone_are_removed_even_if_it_went_while_nobody_looked() {
    let (mut snapshot, mut api) = (synced(&["west", "north"]), Api::default());
    snapshot.export_seen("west", export("api", &[80]));
    snapshot.export_seen("north", export("web", &[80]));
    api.settle(&mut snapshot);
    let mut fresh = restarted(&snapshot, &api);
    fresh.links_reset(vec![link("north")]);
    api.settle(&mut fresh);
    assert_eq!(api.services.keys().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["web-north"]);
    assert_eq!(api.slices.len(), 1);
}

#[test]
fn edits_by_hand_are_put_right() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", export("api", &[80]));
    api.settle(&mut snapshot);
    let right = api.service("api-west").clone();
    let edits: [fn(&mut Service); 5] = [
        |s| s.spec.as_mut().unwrap().selector = Some(BTreeMap::from([("app".into(), "evil".into())])),
        |s| s.spec.as_mut().unwrap().session_affinity = Some("ClientIP".into()),
        |s| s.metadata.labels.as_mut().unwrap().clear(),
        |s| s.metadata.annotations.as_mut().unwrap().clear(),
        |s| {
            s.metadata
                .labels
                .as_mut()
                .unwrap()
                .insert("service.kubernetes.io/service-proxy-name".into(), "x".into());
        },
    ];
    for edit in edits {
        let mut edited = api.service("api-west").clone();
        edit(&mut edited);
        let stored = api.put(edited);
        snapshot.service_seen(stored);
        api.settle(&mut snapshot);
        let now = api.service("api-west");
        assert_eq!(
            (&now.spec, &now.metadata.labels, &now.metadata.annotations),
            (&right.spec, &right.metadata.labels, &right.metadata.annotations)
        );
    }
    let gone = api.services.remove(&Key::new("default", "api-west")).unwrap();
    snapshot.service_gone(&gone);
    api.settle(&mut snapshot);
    assert_eq!(
        api.slice("api-west").metadata.owner_references.as_ref().unwrap()[0].uid,
        *api.service("api-west").metadata.uid.as_ref().unwrap()
    );
}

#[test]
fn somebody_elses_service_is_left_alone_and_told() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    let theirs = api.put(users_own("api-west"));
    snapshot.service_seen(theirs.clone());
    snapshot.export_seen("west", export("api", &[80]));
    snapshot.occupied(Key::new("default", "web-west"), "a user's".to_owned());
    snapshot.export_seen("west", export("web", &[80]));
    assert!(api.settle(&mut snapshot).is_empty());
    let failed =
        snapshot.verdicts("west").filter(|(_, v)| matches!(v, Verdict::Failed(f) if f.reason == "Conflict"));
    assert_eq!(failed.count(), 2);
    snapshot.export_gone("west", &Key::new("default", "api"));
    snapshot.link_gone("west");
    assert!(api.settle(&mut snapshot).is_empty());
    assert_eq!(api.services[&Key::of(&theirs)], theirs);
}

#[test]
fn exhaustion_is_told_and_ends_with_the_first_free_port() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.ports = Some(Ports::restore((10_000, 10_000), Saved::default(), []));
    snapshot.export_seen("west", export("a", &[80]));
    snapshot.export_seen("west", export("b", &[80]));
    api.settle(&mut snapshot);
    assert_eq!(api.services.len(), 1);
    let failed = snapshot
        .verdicts("west")
        .filter(|(_, v)| matches!(v, Verdict::Failed(f) if f.reason == "PortsExhausted"));
    assert_eq!(failed.count(), 1);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Export(usize, usize, Vec<u16>),
    Unexport(usize, usize),
    Relist(usize, Vec<usize>),
    LinkGone(usize),
    LinkBack(usize),
    Namespace(bool),
    Pods(Vec<u8>),
    DeleteByHand(usize),
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let (links, services) = (0..LINKS.len(), 0..SERVICES.len());
    let ports = proptest::collection::btree_set(80u16..84, 1..3).prop_map(|s| s.into_iter().collect());
    prop_oneof![
        4 => (links.clone(), services.clone(), ports).prop_map(|(l, s, p)| Event::Export(l, s, p)),
        2 => (links.clone(), services.clone()).prop_map(|(l, s)| Event::Unexport(l, s)),
        1 => (links.clone(), proptest::collection::vec(services, 0..3)).prop_map(|(l, s)| Event::Relist(l, s)),
        1 => links.clone().prop_map(Event::LinkGone),
        1 => links.prop_map(Event::LinkBack),
        1 => any::<bool>().prop_map(Event::Namespace),
        1 => proptest::collection::vec(1u8..4, 0..3).prop_map(Event::Pods),
        1 => (0usize..10).prop_map(Event::DeleteByHand),
        3 => Just(Event::Settle),
    ]
}

const LINKS: [&str; 3] = ["c", "b-c", "west"];
const SERVICES: [&str; 4] = ["a", "a-b", "users", "web"];

fn happen(snapshot: &mut Snapshot, api: &mut Api, event: Event) {
    match event {
        Event::Export(l, s, ports) => {
            if snapshot.links.items.contains_key(LINKS[l]) {
                snapshot.export_seen(LINKS[l], export(SERVICES[s], &ports));
            }
        }
        Event::Unexport(l, s) => snapshot.export_gone(LINKS[l], &Key::new("default", SERVICES[s])),
        Event::Relist(l, s) => {
            if snapshot.links.items.contains_key(LINKS[l]) {
                snapshot.exports_reset(LINKS[l], s.into_iter().map(|s| export(SERVICES[s], &[80])).collect());
            }
        }
        Event::LinkGone(l) => snapshot.link_gone(LINKS[l]),
        Event::LinkBack(l) => snapshot.link_seen(link(LINKS[l])),
        Event::Namespace(true) => snapshot.namespace_seen("default"),
        Event::Namespace(false) => snapshot.namespace_gone("default"),
        Event::Pods(pods) => {
            snapshot.pods_reset(pods.into_iter().map(|n| pod(n, &LINKS, 10_000..=10_100)).collect());
        }
        Event::DeleteByHand(n) => {
            let key = api.services.keys().filter(|k| k.name != "users-west").nth(n).cloned();
            if let Some(service) = key.and_then(|key| api.services.remove(&key)) {
                snapshot.service_gone(&service);
            }
        }
        Event::Settle => {
            api.settle(snapshot);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: what was done piece by piece is what a process that starts now would do, no
    /// port leads to two places, and a Service that is not ours is never touched.
    #[test]
    fn piece_by_piece_equals_all_at_once(events in proptest::collection::vec(event(), 1..60)) {
        let (mut snapshot, mut api) = (synced(&LINKS), Api::default());
        let theirs = api.put(users_own("users-west"));
        snapshot.service_seen(theirs.clone());
        for event in events {
            happen(&mut snapshot, &mut api, event);
        }
        api.settle(&mut snapshot);
        prop_assert_eq!(&api.services[&Key::of(&theirs)], &theirs);
        snapshot.mark_all();
        prop_assert!(api.settle(&mut snapshot).is_empty(), "nothing was forgotten");
        let mut fresh = restarted(&snapshot, &api);
        for (link, remote) in &snapshot.remotes {
            if remote.synced {
                fresh.exports_reset(link, remote.exports.values().cloned().collect());
            } else {
                remote.exports.values().for_each(|e| fresh.export_seen(link, e.clone()));
            }
        }
        let writes = api.settle(&mut fresh);
        prop_assert!(writes.is_empty(), "{:?}", writes);
        let mut seen = BTreeSet::new();
        for slice in api.slices.values() {
            let route = SliceRoute::from_annotations(slice.metadata.annotations.as_ref().unwrap()).unwrap();
            for port in route.ports.keys() {
                prop_assert!(seen.insert(*port), "port {} leads to two places", port);
            }
        }
    }
}
