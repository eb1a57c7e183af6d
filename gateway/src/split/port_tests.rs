//! Who is chosen: by weight among those who live, and the apex's own pods for what is not selected.

use super::*;
use crate::{
    egress::port_table::SliceRow as PortRow,
    ingress::service_table::{Endpoint, SliceRow},
};
use linkspan_core::api::{
    gateway_report::LinkHealth,
    route_group::RouteMatch,
    slice::SliceRoute,
    split::{Protocol, SplitBackend},
};
use std::collections::BTreeSet;

const GATEWAY_PORT: u16 = 10_100;
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9));

fn sources() -> Sources {
    let sources = Sources {
        namespace: "linkspan".to_owned(),
        services: Arc::default(),
        ports: Arc::default(),
        board: Board::default(),
    };
    set_pods(&sources, "api", &[1, 2]);
    set_remote(&sources, true, true);
    sources
}

fn set_pods(sources: &Sources, service: &str, pods: &[u8]) {
    let endpoints = pods.iter().map(|n| Endpoint {
        ip: IpAddr::from([10, 0, 0, *n]),
        hostname: None,
        ready: true,
        serving_while_terminating: false,
        for_zones: Vec::new(),
    });
    let row = SliceRow {
        service: service.to_owned(),
        ports: vec![("http".to_owned(), 8080)],
        endpoints: endpoints.collect(),
        ..SliceRow::default()
    };
    sources.services.update(|table| {
        table.set_slice("default", service, Some(row));
        true
    });
}

fn remote() -> Remote {
    Remote { link: "west".to_owned(), target: "api.default:80".parse().unwrap() }
}

fn set_remote(sources: &Sources, alive: bool, ready: bool) {
    sources.board.set("west", LinkHealth { alive: Some(alive), ..LinkHealth::default() }, true);
    let pods = if ready { BTreeSet::from(["gw".to_owned()]) } else { BTreeSet::new() };
    let route = SliceRoute { link: "west".to_owned(), ports: BTreeMap::from([(10_001, remote().target)]) };
    let row = PortRow { route, ready_pods: pods, ..PortRow::default() };
    sources.ports.update(|table| table.set("default", "api-west", Some(row)));
}

fn at(weights: [u64; 2], matches: Vec<RouteMatch>, affinity: bool) -> BTreeMap<u16, Route> {
    let backend = |service: &str, weight, place| SplitBackend { service: service.to_owned(), weight, place };
    let port = SplitPort {
        port: 80,
        name: "http".to_owned(),
        protocol: Protocol::Detect,
        backends: vec![
            backend("api", weights[0], Place::Local("http".to_owned())),
            backend("api-west", weights[1], Place::Link(remote())),
        ],
        matches,
    };
    let route = SplitRoute {
        split: "s".to_owned(),
        apex: "api".to_owned(),
        affinity,
        ports: BTreeMap::from([(GATEWAY_PORT, port)]),
    };
    let at = SplitAt { namespace: "default".to_owned(), route: Arc::new(route), gateway_port: GATEWAY_PORT };
    let route = Route {
        link: String::new(),
        target: "api.default:80".parse().unwrap(),
        http: false,
        split: Some(Arc::new(at)),
    };
    BTreeMap::from([(GATEWAY_PORT, route)])
}

fn port(sources: &Sources, weights: [u64; 2]) -> (Ports, Arc<Port>) {
    let ports = Ports::new(sources.clone(), SplitMetrics::default());
    ports.update(&at(weights, Vec::new(), false));
    let port = ports.get(GATEWAY_PORT).unwrap();
    (ports, port)
}

fn choose(port: &Port, tried: &[usize]) -> Result<usize, Nobody> {
    port.choose(None, CLIENT, tried).map(|choice| choice.index)
}

fn shares(port: &Port) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..1000 {
        counts[choose(port, &[]).unwrap()] += 1;
    }
    counts
}

#[test]
fn the_share_of_the_dead_goes_to_the_living_and_back() {
    let sources = sources();
    let (_, port) = port(&sources, [80, 20]);
    assert_eq!(shares(&port), [800, 200, 0]);
    set_remote(&sources, false, true);
    assert_eq!(shares(&port), [1000, 0, 0], "its gateway is dead");
    set_remote(&sources, true, false);
    assert_eq!(shares(&port), [1000, 0, 0], "it has no endpoint");
    set_remote(&sources, true, true);
    set_pods(&sources, "api", &[]);
    assert_eq!(shares(&port), [0, 1000, 0], "no pod here");
    set_remote(&sources, false, false);
    assert_eq!(shares(&port), [800, 200, 0], "nobody seems to live: try");
}

#[test]
fn weight_zero_gets_nothing_and_all_zero_is_told() {
    let sources = sources();
    let (_, only) = port(&sources, [0, 20]);
    assert_eq!(shares(&only), [0, 1000, 0]);
    assert_eq!(choose(&only, &[1]).unwrap_err(), Nobody::NoneLeft, "not even when the others fail");
    let (_, none) = port(&sources, [0, 0]);
    assert_eq!(choose(&none, &[]).unwrap_err(), Nobody::NoWeight);
}

#[test]
fn a_second_try_goes_to_another_and_takes_nobodys_turn() {
    let sources = sources();
    let (_, port) = port(&sources, [1, 1]);
    for _ in 0..10 {
        let first = choose(&port, &[]).unwrap();
        assert_eq!(choose(&port, &[first]).unwrap(), 1 - first);
        assert_eq!(choose(&port, &[0, 1]).unwrap_err(), Nobody::NoneLeft);
    }
    assert_eq!(shares(&port), [500, 500, 0]);
    for _ in 0..100 {
        let ahead = port.peek(CLIENT, &[]).unwrap().index;
        assert_eq!(choose(&port, &[]).unwrap(), ahead, "looking ahead names who comes");
        let next = port.peek(CLIENT, &[]).unwrap().index;
        port.took(next);
        assert_ne!(port.peek(CLIENT, &[]).unwrap().index, next);
    }
}

#[test]
fn pods_take_turns() {
    let sources = sources();
    let (_, port) = port(&sources, [1, 0]);
    let first = |port: &Port| match port.choose(None, CLIENT, &[]).unwrap().to {
        To::Pods(pods) => pods[0],
        To::Remote(_) => panic!(),
    };
    assert_ne!(first(&port), first(&port));
}

#[test]
fn what_is_not_selected_goes_to_the_apexs_own_pods() {
    let sources = sources();
    let ports = Ports::new(sources, SplitMetrics::default());
    let only = RouteMatch { path_regex: Some("/new".to_owned()), ..RouteMatch::default() };
    ports.update(&at([0, 1], vec![only], false));
    let port = ports.get(GATEWAY_PORT).unwrap();
    let headers = HeaderMap::new();
    let asked = |path| {
        let asked = Asked { method: "GET", path, headers: &headers };
        let choice = port.choose(Some(&asked), CLIENT, &[]).unwrap();
        choice.labels.backend.clone()
    };
    assert_eq!((asked("/new").as_str(), asked("/old").as_str()), ("api-west", "api"));
    assert_eq!(port.choose(None, CLIENT, &[]).unwrap().labels.backend, "api", "bytes are no requests");
}

#[test]
fn a_client_with_affinity_keeps_to_one_pod() {
    let sources = sources();
    let ports = Ports::new(sources, SplitMetrics::default());
    ports.update(&at([1, 1], Vec::new(), true));
    let port = ports.get(GATEWAY_PORT).unwrap();
    let kept = |client: IpAddr| format!("{:?}", port.choose(None, client, &[]).unwrap().to);
    let all: BTreeSet<String> = (0u8..64)
        .map(|n| {
            let client = IpAddr::from([10, 9, 9, n]);
            assert_eq!(kept(client), kept(client));
            kept(client)
        })
        .collect();
    assert_eq!(all.len(), 3, "all three are somebody's: {all:?}");
}

#[test]
fn new_weights_reach_connections_that_are_open_and_the_end_does_too() {
    let sources = sources();
    let (ports, port) = port(&sources, [1, 0]);
    ports.update(&at([0, 1], Vec::new(), false));
    assert_eq!(shares(&port), [0, 1000, 0]);
    ports.update(&BTreeMap::new());
    assert_eq!(shares(&port), [0, 0, 1000], "all to the apex");
    assert!(port.now().1 && ports.get(GATEWAY_PORT).is_none());
}

#[test]
fn the_report_says_who_lives_and_what_each_gets() {
    let sources = sources();
    let (ports, _) = port(&sources, [60, 20]);
    set_remote(&sources, false, true);
    let report = ports.report().backends;
    let told: Vec<_> = report.iter().map(|b| (b.backend.as_str(), b.weight, b.alive, b.effective)).collect();
    assert_eq!(told, [("api", 60, true, 1.0), ("api-west", 20, false, 0.0)]);
}
