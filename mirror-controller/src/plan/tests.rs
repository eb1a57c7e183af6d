//! Any order of events with the same end gives the same objects.

use super::*;
use crate::{
    fixtures::{Api, export, link, now, pod, service_gone, service_seen, standing, synced, verdicts},
    ports::{Ports, Saved},
    snapshot::{
        service_of,
        standing::{KubernetesSlice, StandingSlice},
    },
};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linkspan_core::api::{exported_service::ExportedServiceSpec, selector_text, slice::SliceRoute};
use proptest::prelude::*;

/// The same state as a process would see it that starts now.
fn restarted(snapshot: &Snapshot, api: &Api) -> Snapshot {
    let mut fresh = Snapshot::default();
    fresh.links_reset(snapshot.links.items.values().cloned().collect());
    fresh.namespaces_reset(snapshot.namespaces.items.keys().cloned());
    fresh.services_reset(api.services.values().map(|s| (Key::of(s), standing(s))).collect());
    fresh.slices_reset(api.slices.values().map(StandingSlice::of).collect());
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
    snapshot.export_seen("west", &export("api", &[80]));
    snapshot.export_seen("west", &export("old", &[80]));
    api.settle(&mut snapshot);
    let mut fresh = restarted(&snapshot, &api);
    assert!(api.settle(&mut fresh).is_empty(), "the target was not listed");
    fresh.pods_reset(BTreeMap::from([pod(1, &[], [])]));
    let writes = api.settle(&mut fresh);
    assert_eq!(writes.len(), 2, "the gateway died meanwhile: {writes:?}");
    assert!(writes.iter().all(|w| matches!(w, Change::PlaceEndpoints(..))));
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
    snapshot.export_seen("west", &export("api", &[80]));
    snapshot.export_seen("north", &export("web", &[80]));
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
    snapshot.export_seen("west", &export("api", &[80]));
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
        service_seen(&mut snapshot, stored);
        api.settle(&mut snapshot);
        let now = api.service("api-west");
        assert_eq!(
            (&now.spec, &now.metadata.labels, &now.metadata.annotations),
            (&right.spec, &right.metadata.labels, &right.metadata.annotations)
        );
    }
    let gone = api.services.remove(&Key::new("default", "api-west")).unwrap();
    service_gone(&mut snapshot, &gone);
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
    service_seen(&mut snapshot, theirs.clone());
    snapshot.export_seen("west", &export("api", &[80]));
    snapshot.occupied(Key::new("default", "web-west"), "a user's");
    snapshot.export_seen("west", &export("web", &[80]));
    assert!(api.settle(&mut snapshot).is_empty());
    assert_eq!(snapshot.counts("west").conflicts, 2);
    snapshot.export_gone("west", &Key::new("default", "api"));
    snapshot.link_gone("west");
    assert!(api.settle(&mut snapshot).is_empty());
    assert_eq!(api.services[&Key::of(&theirs)], theirs);
}

#[test]
fn exhaustion_is_told_and_ends_with_the_first_free_port() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.ports = Some(Ports::restore((10_000, 10_000), Saved::default(), []));
    snapshot.export_seen("west", &export("a", &[80]));
    snapshot.export_seen("west", &export("b", &[80]));
    api.settle(&mut snapshot);
    assert_eq!(api.services.len(), 1);
    let failed = verdicts(&snapshot, "west")
        .into_iter()
        .filter(|(_, v)| matches!(v, Verdict::Failed(f) if f.reason == "PortsExhausted"));
    assert_eq!(failed.count(), 1);
}

#[test]
fn slices_that_kubernetes_made_for_a_mirror_are_removed_and_others_are_not() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", &export("api", &[80]));
    api.settle(&mut snapshot);
    let uid = api.service("api-west").metadata.uid.clone().unwrap();
    let slice = |name: &str, owner: &str| -> EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "900",
                "labels": {"kubernetes.io/service-name": "api-west",
                           "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "api-west", "uid": owner, "controller": true}]},
            "addressType": "IPv4", "endpoints": [],
        }))
        .unwrap()
    };
    for made in [slice("api-west-x1", &uid), slice("api-west-x2", "another")] {
        api.slices.insert(Key::of(&made), made.clone());
        let (service, made) = KubernetesSlice::of(&made).unwrap();
        snapshot.kubernetes_slice_seen(service, made);
    }
    let writes = api.settle(&mut snapshot);
    assert!(
        matches!(&writes[..], [Change::DeleteSlice(seen)] if seen.key.name == "api-west-x1"),
        "only what our Service owns: {writes:?}"
    );
    assert!(api.settle(&mut snapshot).is_empty());
}

#[test]
fn a_missing_namespace_is_made_where_the_selector_says_so() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.create_namespaces = Some(selector_text::parse("kubernetes.io/metadata.name in (a,b)").unwrap());
    for namespace in ["a", "c"] {
        snapshot.export_seen(
            "west",
            &ExportedServiceSpec { namespace: namespace.to_owned(), ..export("api", &[80]) },
        );
    }
    let writes = api.settle(&mut snapshot);
    let made: Vec<&str> = writes
        .iter()
        .filter_map(|w| match w {
            Change::CreateNamespace(n) => n.metadata.name.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(made, ["a"]);
    assert_eq!(api.services.keys().map(|key| key.namespace.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(snapshot.counts("west").failing, 1);
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
                snapshot.export_seen(LINKS[l], &export(SERVICES[s], &ports));
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
                service_gone(snapshot, &service);
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
        service_seen(&mut snapshot, theirs.clone());
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
                fresh.exports_reset(link, remote.exports().collect());
            } else {
                remote.exports().for_each(|e| drop(fresh.export_seen(link, &e)));
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

/// What stands, without what depends on who came first: ports of the gateway, versions, uids and addresses.
fn outline(api: &Api) -> Vec<serde_json::Value> {
    let service = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let ports: Vec<_> = spec.ports.iter().flatten().map(|p| (p.name.clone(), p.port)).collect();
        let m = &service.metadata;
        serde_json::json!([m.namespace, m.name, m.labels, m.annotations, ports, spec.selector])
    };
    let slice = |slice: &EndpointSlice| {
        let annotations = slice.metadata.annotations.as_ref().unwrap();
        let route = SliceRoute::from_annotations(annotations).unwrap();
        let targets: BTreeSet<String> = route.ports.values().map(ToString::to_string).collect();
        serde_json::json!([slice.metadata.name, slice.metadata.labels, route.link, targets, slice.endpoints])
    };
    api.services.values().map(service).chain(api.slices.values().map(slice)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Each Service has a history of its own; however the histories are interleaved, and however often all of it is
    /// written in between, the same stands in the end.
    #[test]
    fn any_order_of_events_with_the_same_end_gives_the_same_objects(
        histories in proptest::collection::vec(
            proptest::collection::vec(
                proptest::option::of(proptest::collection::btree_set(80u16..84, 1..3)), 1..5), 4..5),
        orders in (proptest::collection::vec(0usize..5, 0..60), proptest::collection::vec(0usize..5, 0..60)),
    ) {
        let run = |order: &[usize]| {
            let (mut snapshot, mut api) = (synced(&["c", "west"]), Api::default());
            let mut left: Vec<_> = histories.iter().map(|history| history.iter()).collect();
            let rest = (0..4).flat_map(|n| std::iter::repeat_n(n, 5));
            for turn in order.iter().copied().chain(rest) {
                let Some(states) = left.get_mut(turn) else {
                    api.settle(&mut snapshot);
                    continue;
                };
                let (link, name) = [("c", "a"), ("c", "web"), ("west", "a"), ("west", "web")][turn];
                match states.next() {
                    Some(Some(ports)) => {
                        let ports: Vec<u16> = ports.iter().copied().collect();
                        snapshot.export_seen(link, &export(name, &ports));
                    }
                    Some(None) => snapshot.export_gone(link, &Key::new("default", name)),
                    None => {}
                }
            }
            api.settle(&mut snapshot);
            outline(&api)
        };
        prop_assert_eq!(run(&orders.0), run(&orders.1));
    }
}
