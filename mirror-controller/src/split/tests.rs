//! Decisions and steps as values: which splits hold, and that no moment of a takeover leaves an apex without endpoints.
#![allow(clippy::needless_pass_by_value, reason = "values that are made in place")]

use super::{
    decide::{Decided, Elsewhere, Why, decide},
    objects::{takes_traffic, target},
    step::{Memo, Scene, Stage, Step, next},
    table::{MirrorPorts, SplitTable, has_key, is_labelled, user_selector},
};
use crate::{
    diff::Change,
    gateways::table::{GatewayPod, Place, Report},
    snapshot::Key,
};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};
use linkspan_core::api::{
    labels::SPLIT,
    route_group::HTTPRouteGroup,
    split::{Place as BackendPlace, Protocol, shadow_name},
    traffic_split::TrafficSplit,
};
use proptest::prelude::*;
use serde_json::{Value, from_value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// One mirror, `my-api-west` with port 8080; policies as given.
#[derive(Default)]
struct Around {
    barred: BTreeMap<Key, Why>,
}

impl Elsewhere for Around {
    fn mirror(&self, key: &Key) -> Option<MirrorPorts> {
        let ports = BTreeMap::from([(8080, "my-api.default:8080".parse().unwrap())]);
        (key.name == "my-api-west").then(|| MirrorPorts { link: "west".to_owned(), ports })
    }

    fn barred(&self, apex: &Key) -> Option<Why> {
        self.barred.get(apex).cloned()
    }
}

fn service(name: &str, spec: Value) -> Service {
    from_value(json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}))
        .unwrap()
}

fn api() -> Value {
    json!({"selector": {"app": "my-api"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": 80}]})
}

fn split(name: &str, apex: &str, backends: Value) -> TrafficSplit {
    from_value(json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"service": apex, "backends": backends}}))
    .unwrap()
}

fn seeds() -> TrafficSplit {
    split(
        "s",
        "my-api",
        json!([{"service": "my-api", "weight": 80}, {"service": "my-api-west", "weight": 20}]),
    )
}

fn table(services: Vec<Service>, splits: Vec<TrafficSplit>) -> SplitTable {
    let mut table = SplitTable::default();
    table.splits.reset(splits);
    table.name_services();
    table.services.reset(services);
    table.name_services();
    table
}

fn reason(decided: &Decided, name: &str) -> &'static str {
    let verdict = &decided.verdicts[&Key::new("default", name)];
    verdict.refused.as_ref().map_or("", |why| why.reason)
}

fn left_out(decided: &Decided, name: &str) -> Vec<&'static str> {
    decided.verdicts[&Key::new("default", name)].left_out.iter().map(|why| why.reason).collect()
}

#[test]
fn the_seeds_example_holds() {
    let decided = decide(&table(vec![service("my-api", api())], vec![seeds()]), &Around::default());
    let wanted = &decided.wanted[&Key::new("default", "my-api")];
    let port = &wanted.ports[0];
    assert_eq!((port.port, port.protocol, wanted.affinity), (8080, Protocol::Detect, false));
    let told: Vec<_> = port.backends.iter().map(|b| (b.service.as_str(), b.weight)).collect();
    assert_eq!(told, [("my-api", 80_000), ("my-api-west", 20_000)]);
    assert_eq!(port.backends[0].place, BackendPlace::Local("http".to_owned()));
    assert!(matches!(&port.backends[1].place, BackendPlace::Link(remote) if remote.link == "west"));
    assert_eq!((reason(&decided, "s"), left_out(&decided, "s")), ("", vec![]));
}

#[test]
fn unsuitable_apexes_are_refused_by_reason() {
    let with = |key: &str, value: Value| {
        let mut spec = api();
        spec[key] = value;
        spec
    };
    let cases = [
        (with("clusterIP", json!("None")), "ApexHeadless"),
        (with("selector", json!(null)), "ApexWithoutSelector"),
        (with("type", json!("ExternalName")), "ApexExternalName"),
        (with("internalTrafficPolicy", json!("Local")), "ApexLocalPolicy"),
        (with("externalTrafficPolicy", json!("Local")), "ApexLocalPolicy"),
        (with("ports", json!([{"port": 53, "protocol": "UDP"}])), "ApexPortNotTcp"),
    ];
    for (spec, expected) in cases {
        let decided = decide(&table(vec![service("my-api", spec)], vec![seeds()]), &Around::default());
        assert_eq!(reason(&decided, "s"), expected);
        assert!(decided.wanted.is_empty());
    }
    let missing = decide(&table(vec![], vec![seeds()]), &Around::default());
    assert_eq!(reason(&missing, "s"), "ApexMissing");
    let of_mirror = split("s", "my-api-west", json!([{"service": "my-api", "weight": 1}]));
    let decided = decide(&table(vec![], vec![of_mirror]), &Around::default());
    assert_eq!(reason(&decided, "s"), "ApexIsMirror");
    let mut targets = service("my-api", api());
    targets.metadata.annotations = Some([("cloud.google.com/neg".to_owned(), "{}".to_owned())].into());
    assert_eq!(
        reason(&decide(&table(vec![targets], vec![seeds()]), &Around::default()), "s"),
        "ApexPodTargets"
    );
    let foreign = service(&shadow_name("my-api"), api());
    let decided = decide(&table(vec![service("my-api", api()), foreign], vec![seeds()]), &Around::default());
    assert_eq!(reason(&decided, "s"), "NameTaken");
    let why = Why::new("NetworkPolicy", "closed");
    let around = Around { barred: BTreeMap::from([(Key::new("default", "my-api"), why)]) };
    assert_eq!(
        reason(&decide(&table(vec![service("my-api", api())], vec![seeds()]), &around), "s"),
        "NetworkPolicy"
    );
}

#[test]
fn what_is_wrong_with_a_backend_is_told_and_the_rest_goes_on() {
    let mut other_port = api();
    other_port["ports"][0]["port"] = json!(9090);
    let services = vec![service("my-api", api()), service("other", other_port), service("split-too", api())];
    let backends = json!([
        {"service": "my-api", "weight": 1}, {"service": "nobody", "weight": 1}, {"service": "other", "weight": 1},
        {"service": "split-too", "weight": 1}, {"service": "my-api", "weight": 2}]);
    let second = split("t", "split-too", json!([{"service": "my-api", "weight": 1}]));
    let decided = decide(&table(services, vec![split("s", "my-api", backends), second]), &Around::default());
    assert_eq!(left_out(&decided, "s"), ["BackendUnknown", "BackendWithoutPort", "BackendIsSplit"]);
    let wanted = &decided.wanted[&Key::new("default", "my-api")];
    assert_eq!(wanted.ports[0].backends.len(), 1, "twice named counts once");
    assert_eq!(wanted.ports[0].backends[0].weight, 3000);
    assert_eq!(reason(&decided, "t"), "NoBackends", "a ring of splits goes nowhere");
}

#[test]
fn of_two_splits_on_one_apex_the_older_holds() {
    let mut younger = seeds();
    younger.metadata.name = Some("a".to_owned());
    younger.metadata.creation_timestamp = from_value(json!("2026-01-02T00:00:00Z")).unwrap();
    let decided = decide(&table(vec![service("my-api", api())], vec![younger, seeds()]), &Around::default());
    assert_eq!((reason(&decided, "a"), reason(&decided, "s")), ("ApexTaken", ""));
    assert_eq!(decided.wanted[&Key::new("default", "my-api")].split.name, "s");
}

#[test]
fn matches_come_from_all_groups_and_missing_ones_are_told() {
    let mut matched = seeds();
    matched.spec.matches = from_value(json!([{"kind": "HTTPRouteGroup", "name": "g"}])).unwrap();
    let mut known = table(vec![service("my-api", api())], vec![matched]);
    assert_eq!(reason(&decide(&known, &Around::default()), "s"), "RouteGroupMissing");
    let group = |path: &str| -> HTTPRouteGroup {
        from_value(json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
            "metadata": {"name": "g", "namespace": "default"}, "spec": {"matches": [{"pathRegex": path}]}}))
        .unwrap()
    };
    known.groups.reset([group("(")]);
    assert_eq!(reason(&decide(&known, &Around::default()), "s"), "InvalidMatch");
    known.groups.reset([group("/new.*")]);
    let decided = decide(&known, &Around::default());
    assert_eq!(decided.wanted[&Key::new("default", "my-api")].ports[0].matches.len(), 1);
}

/// A cluster with one apex, two pods of it, and a gateway.
struct Cluster {
    table: SplitTable,
    pods: BTreeMap<String, GatewayPod>,
    wanted: bool,
    memo: Memo,
    now: Instant,
    version: u64,
    /// Gateway pods listen on what our slices name, once they have looked.
    up: bool,
}

const APEX: &str = "my-api";

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            table: table(vec![service(APEX, api())], vec![seeds()]),
            pods: BTreeMap::new(),
            wanted: true,
            memo: Memo::default(),
            now: Instant::now(),
            version: 0,
            up: true,
        };
        cluster.kubernetes();
        cluster
    }

    fn key() -> Key {
        Key::new("default", APEX)
    }

    fn apex(&self) -> &Service {
        &self.table.services.known.items[&Self::key()]
    }

    fn put_slice(&mut self, mut slice: EndpointSlice) {
        self.version += 1;
        slice.metadata.resource_version = Some(self.version.to_string());
        slice.metadata.uid.get_or_insert_with(|| format!("u{}", self.version));
        self.table.slices.items.insert(Key::of(&slice), slice);
    }

    fn put_service(&mut self, mut service: Service) {
        self.version += 1;
        service.metadata.resource_version = Some(self.version.to_string());
        service.metadata.uid.get_or_insert_with(|| format!("u{}", self.version));
        self.table.services.known.items.insert(Key::of(&service), service);
    }

    /// Kubernetes' own controller catches up: slices follow selectors and labels.
    fn kubernetes(&mut self) {
        let services: Vec<Service> = self.table.services.known.items.values().cloned().collect();
        for service in services {
            let selected = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
            let matched = selected.iter().all(|(k, v)| k == "app" && v == APEX);
            let endpoints = if matched {
                json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.1.0.2"], "conditions": {"ready": true}}])
            } else {
                json!([])
            };
            let name = service.metadata.name.clone().unwrap();
            let mut labels = service.metadata.labels.clone().unwrap_or_default();
            labels.insert("kubernetes.io/service-name".to_owned(), name.clone());
            labels.insert(
                "endpointslice.kubernetes.io/managed-by".to_owned(),
                "endpointslice-controller.k8s.io".to_owned(),
            );
            let slice = json!({"metadata": {"name": format!("{name}-k8s"), "namespace": "default", "uid": format!("{name}-k8s"), "labels": labels},
                "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
            self.put_slice(from_value(slice).unwrap());
        }
        let shadow = Key::new("default", shadow_name(APEX));
        if !self.table.services.known.items.contains_key(&shadow) {
            self.table.slices.items.remove(&Key::new("default", format!("{}-k8s", shadow.name)));
        }
    }

    /// The gateway pod binds what our slices name, and says so.
    fn gateway(&mut self) {
        let mut bound = BTreeSet::new();
        for slice in self.ours() {
            let ports = slice.ports.iter().flatten().filter_map(|p| u16::try_from(p.port?).ok());
            bound.extend(ports.filter(|p| *p >= 10_000));
        }
        let place =
            Place { ips: ["10.1.9.9".parse().unwrap()].into(), kube_ready: self.up, ..Place::default() };
        let report = Report { bound, ..Report::default() };
        let pod = GatewayPod { place, report: Some(report), heard: self.up };
        self.pods = BTreeMap::from([("gw".to_owned(), pod)]);
        if !self.up {
            // Another one speaks, so silence means this pod.
            self.pods.insert("other".to_owned(), GatewayPod { heard: true, ..GatewayPod::default() });
        }
    }

    fn ours(&self) -> Vec<&EndpointSlice> {
        self.table.slices_of(&Self::key()).ours
    }

    /// One look, of whose writes the first `limit` succeed.
    fn look(&mut self, limit: usize) -> Stage {
        let decided = decide(&self.table, &Around::default());
        let wanted = decided.wanted.get(&Self::key()).filter(|_| self.wanted);
        let key = Self::key();
        let assigned = BTreeMap::from([(target(&key, 8080), 10_500)]);
        let scene = Scene {
            key: &key,
            apex: self.table.services.known.items.get(&key),
            wanted: wanted.map(|w| (w, &assigned)),
            shadow: self.table.shadow(&key),
            around: self.table.slices_of(&key),
            pods: &self.pods,
        };
        let next = next(&scene, &mut self.memo, self.now);
        for step in next.steps.into_iter().take(limit) {
            self.write(step);
            self.check();
        }
        next.stage
    }

    fn write(&mut self, step: Step) {
        let mut apex = self.apex().clone();
        let selector = apex.spec.as_mut().unwrap().selector.as_mut().unwrap();
        match step {
            Step::Take => {
                selector.insert(SPLIT.to_owned(), "true".to_owned());
                apex.metadata.labels.get_or_insert_default().insert(SPLIT.to_owned(), "true".to_owned());
                self.put_service(apex);
            }
            Step::Release => {
                selector.remove(SPLIT);
                self.put_service(apex);
            }
            Step::Unlabel => {
                apex.metadata.labels.as_mut().unwrap().remove(SPLIT);
                self.put_service(apex);
            }
            Step::Change(Change::CreateService(s) | Change::UpdateService(s)) => self.put_service(*s),
            Step::Change(Change::CreateSlice(s) | Change::UpdateSlice(s)) => self.put_slice(*s),
            Step::Change(Change::DeleteService(seen)) => {
                self.table.services.known.items.remove(&seen.key);
            }
            Step::Change(Change::DeleteSlice(seen)) => {
                self.table.slices.items.remove(&seen.key);
            }
            Step::Change(other) => panic!("{other:?}"),
        }
    }

    /// Whom kube-proxy sends clients to, and that they serve.
    fn check(&self) {
        let around = self.table.slices_of(&Self::key());
        let own = self.table.slices.items.get(&Key::new("default", "my-api-k8s"));
        let all: Vec<&Endpoint> = around.ours.into_iter().chain(own).flat_map(|s| &s.endpoints).collect();
        let ready: Vec<&&Endpoint> = all.iter().filter(|e| takes_traffic(e)).collect();
        let last = |e: &&&Endpoint| {
            e.conditions.as_ref().is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true))
        };
        let used: Vec<&&Endpoint> = if ready.is_empty() { all.iter().filter(last).collect() } else { ready };
        assert!(!used.is_empty(), "nobody serves: {all:#?}");
        for endpoint in used {
            assert!(endpoint.addresses[0] != "10.1.9.9" || self.up, "a dead gateway is used");
        }
    }

    /// Everybody catches up, time passes, again and again.
    fn settle(&mut self) -> Stage {
        let mut stage = Stage::Gone;
        for _ in 0..30 {
            self.gateway();
            stage = self.look(9);
            self.kubernetes();
            self.now += Duration::from_secs(1);
            self.check();
        }
        stage
    }
}

#[tokio::test(start_paused = true)]
async fn an_apex_is_taken_over_and_given_back_without_a_trace() {
    let mut cluster = Cluster::new();
    let before = cluster.apex().spec.clone();
    assert_eq!(cluster.settle(), Stage::Active);
    assert!(has_key(cluster.apex()) && is_labelled(cluster.apex()));
    assert_eq!(user_selector(cluster.apex()), BTreeMap::from([("app".to_owned(), APEX.to_owned())]));
    cluster.wanted = false;
    assert_eq!(cluster.settle(), Stage::Gone);
    assert_eq!(cluster.apex().spec, before);
    assert!(!is_labelled(cluster.apex()) && cluster.ours().is_empty() && cluster.table.touched().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_gateway_the_apexs_own_pods_serve_at_once() {
    let mut cluster = Cluster::new();
    cluster.settle();
    (cluster.up, cluster.now) = (false, cluster.now + Duration::from_secs(1));
    cluster.gateway();
    assert_eq!(cluster.look(9), Stage::NoGateway, "one write, and the key stays for a moment");
    assert!(has_key(cluster.apex()));
    cluster.check();
    cluster.settle();
    assert!(!has_key(cluster.apex()), "the key follows");
    cluster.up = true;
    assert_eq!(cluster.settle(), Stage::Active);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_key_is_added_again_ever_more_slowly() {
    let mut cluster = Cluster::new();
    cluster.settle();
    let mut waits = Vec::new();
    for _ in 0..4 {
        cluster.write(Step::Release);
        cluster.kubernetes();
        let dropped = cluster.now;
        while !has_key(cluster.apex()) {
            cluster.look(9);
            cluster.now += Duration::from_millis(100);
        }
        waits.push((cluster.now - dropped).as_millis() / 1000);
        cluster.kubernetes();
        cluster.look(9);
    }
    assert_eq!(waits, [1, 2, 4, 8]);
}

/// What may happen in any order.
#[derive(Clone, Copy, Debug)]
enum Event {
    Wanted(bool),
    Gateway(bool),
    Kubernetes,
    Look(usize),
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::Wanted),
        any::<bool>().prop_map(Event::Gateway),
        Just(Event::Kubernetes),
        (0usize..4).prop_map(Event::Look),
        (0usize..4).prop_map(Event::Look),
        (1u64..4000).prop_map(Event::Passes),
    ]
}

proptest! {
    /// Whatever happens in whatever order, writes cut off anywhere: the apex has endpoints that serve. (Kubernetes fills
    /// the apex's slices within a second; nobody waits longer.)
    #[test]
    fn at_no_moment_is_an_apex_without_endpoints_that_serve(events in prop::collection::vec(event(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut cluster = Cluster::new();
            for event in events {
                match event {
                    Event::Wanted(wanted) => cluster.wanted = wanted,
                    Event::Gateway(up) => {
                        cluster.up = up;
                        cluster.gateway();
                        if cluster.ours().iter().flat_map(|s| &s.endpoints).any(takes_traffic) && !up {
                            // Its silence is written at once.
                            cluster.look(9);
                        }
                    }
                    Event::Kubernetes => cluster.kubernetes(),
                    Event::Look(limit) => {
                        cluster.gateway();
                        cluster.look(limit);
                    }
                    Event::Passes(ms) => {
                        cluster.now += Duration::from_millis(ms);
                        cluster.kubernetes();
                    }
                }
                cluster.check();
            }
            cluster.up = true;
            cluster.wanted = true;
            cluster.settle();
            assert_eq!(cluster.settle(), Stage::Active, "it always comes about in the end");
        });
    }
}
