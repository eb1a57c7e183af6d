//! What decisions cost with 10,000 Services: `cargo bench -p linkspan-bench --features micro`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panics")]

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::{
    api::core::v1::Service, apimachinery::pkg::apis::meta::v1::LabelSelector, jiff::Timestamp,
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    exported_service::{ExportedPort, ExportedServiceSpec},
    gateway_report::LinkHealth,
    labels::EXPORTED,
    names::Target,
};
use linkspan_gateway::{
    ingress::{
        account_table::AccountTable,
        authorize::{Policy, Question, authorize},
        caller::Caller,
        choose::{Candidate, Standing, order},
        service_table::{ServicePort, ServiceRow, ServiceTable},
    },
    mtls::peer::Peer,
    record::{Direction, FlowLabels, Metrics, Record},
    split::choose::{Chooser, keep_to},
};
use linkspan_mirror_controller::{
    diff::Change,
    gateways::table::{GatewayPod, Place, Report},
    link::view::LinkView,
    plan::plan,
    ports::{Ports, Saved},
    snapshot::{
        Key, Snapshot,
        standing::{StandingService, StandingSlice},
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    net::{IpAddr, SocketAddr},
};

const SERVICES: u16 = 10_000;
const FIRST_PORT: u16 = 10_000;

fn target(number: u16) -> Target {
    format!("svc-{number}.default:8080").parse().unwrap()
}

fn deciding_who_may(c: &mut Criterion) {
    let mut services = ServiceTable::default();
    for number in 0..SERVICES {
        let ports = vec![ServicePort { name: String::new(), port: 8080 }];
        services.set_service(
            "default",
            &format!("svc-{number}"),
            Some(ServiceRow { ports, ..ServiceRow::default() }),
        );
    }
    let mut accounts = AccountTable::default();
    accounts.set("east", "uid-1");
    let denied = BTreeSet::new();
    let policy = Policy {
        namespace: "linkspan",
        accounts: &accounts,
        denied: &denied,
        services: &services,
        rules: &[],
    };
    let (caller, peer) = (
        Caller::default(),
        Peer {
            identity: "spiffe://west.linkspan/ns/linkspan/sa/east".parse().unwrap(),
            uid: Some("uid-1".to_owned()),
            serial: "ab".to_owned(),
            not_after: "2036-01-01T00:00:00Z".parse().unwrap(),
        },
    );
    let target = target(4711);
    let question = Question { peer: &peer, caller: &caller, target: &target, hops: 1 };
    c.bench_function("authorize, 10,000 Services", |b| {
        b.iter(|| authorize(black_box(&question), &policy).is_ok());
    });
    let candidate = |n| Candidate { address: SocketAddr::from(([10, 0, 0, n], 80)), near: true };
    let endpoints: Vec<Candidate> = (0..20).map(candidate).collect();
    let mut state = 1_usize;
    c.bench_function("order 20 endpoints", |b| {
        b.iter(|| {
            order(
                endpoints.clone(),
                |e| Standing { load: usize::from(e.port()), out: false },
                |n| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) % n
                },
            )
        });
    });
}

fn deciding_whose_turn(c: &mut Criterion) {
    let weights = [500, 250, 125, 125, 0, 1000, 1, 999, 500, 500];
    let mut chooser = Chooser::default();
    c.bench_function("split choice among 10 backends", |b| b.iter(|| chooser.next(black_box(&weights))));
    let client = IpAddr::from([10, 1, 2, 3]);
    c.bench_function("split choice among 10 backends, by client", |b| {
        b.iter(|| keep_to(black_box(client), "backends", &weights));
    });
}

fn counting(c: &mut Criterion) {
    let metrics = Metrics::new();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let labels: Vec<FlowLabels> =
        (0..SERVICES).map(|n| FlowLabels::new(Direction::outbound, "west", &target(n))).collect();
    for labels in &labels {
        Record::open(&metrics, labels.clone(), String::new()).finished();
    }
    c.bench_function("record one flow, 10,000 label sets", |b| {
        b.iter(|| Record::open(&metrics, labels[4711].clone(), String::new()).finished());
    });
    let mut slow = c.benchmark_group("metrics");
    slow.sample_size(10);
    slow.bench_function("write the page, 10,000 label sets", |b| {
        b.iter(|| {
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            page.len()
        });
    });
    slow.finish();
}

fn deciding_what_stands(c: &mut Criterion) {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut snapshot = settled(now);
    let all: Vec<Key> = (0..SERVICES).map(|n| Key::new("default", format!("svc-{n}-west"))).collect();
    let one = &all[4711];
    assert!(snapshot.service(one).is_some(), "it is mirrored");
    c.bench_function("desired and diff of one of 10,000 mirrors", |b| {
        b.iter(|| assert!(plan(&mut snapshot, one, now).is_empty()));
    });
    let mut slow = c.benchmark_group("mirrors");
    slow.sample_size(10);
    slow.bench_function("desired and diff of all 10,000 mirrors", |b| {
        b.iter(|| {
            for key in &all {
                assert!(plan(&mut snapshot, key, now).is_empty());
            }
        });
    });
    slow.finish();
}

/// Both sides of a link with all Services mirrored: there is nothing to do.
fn settled(now: Timestamp) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let link = LinkView {
        name: "west".to_owned(),
        cluster_name: "west".to_owned(),
        domain: "cluster.local".to_owned(),
        remote_namespace: "linkspan".to_owned(),
        gateway_identity: "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".to_owned(),
        selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(EXPORTED.to_owned(), "true".to_owned())])),
            ..LabelSelector::default()
        }),
        ..LinkView::default()
    };
    let ports = (FIRST_PORT, FIRST_PORT + SERVICES);
    let bound = Report {
        links: BTreeMap::from([(
            "west".to_owned(),
            LinkHealth { alive: Some(true), ..LinkHealth::default() },
        )]),
        bound: (ports.0..=ports.1).collect(),
        ..Report::default()
    };
    let place = Place { ips: BTreeSet::from([[10, 1, 0, 1].into()]), kube_ready: true, ..Place::default() };
    let pod = GatewayPod { place, report: Some(bound), heard: true };
    snapshot.links_reset(vec![link]);
    snapshot.namespaces_reset(["default".to_owned()]);
    snapshot.services_reset(vec![]);
    snapshot.slices_reset(vec![]);
    snapshot.pods_reset(BTreeMap::from([("gw-1".to_owned(), pod)]));
    snapshot.ports = Some(Ports::restore(ports, Saved::default(), []));
    snapshot.exports_reset("west", (0..SERVICES).map(export).collect());
    let mut version = 0;
    loop {
        let dirty = snapshot.take_dirty(usize::MAX);
        if dirty.is_empty() {
            return snapshot;
        }
        for key in dirty {
            for change in plan(&mut snapshot, &key, now) {
                version += 1;
                write(&mut snapshot, change, version);
            }
        }
    }
}

fn export(number: u16) -> ExportedServiceSpec {
    let port = ExportedPort {
        name: "http".to_owned(),
        port: 8080,
        protocol: "TCP".to_owned(),
        ready: true,
        ..ExportedPort::default()
    };
    ExportedServiceSpec {
        namespace: "default".to_owned(),
        name: format!("svc-{number}"),
        resource_version: "7".to_owned(),
        labels: BTreeMap::from([(EXPORTED.to_owned(), "true".to_owned())]),
        ports: vec![port],
        ..ExportedServiceSpec::default()
    }
}

/// Carries a change out as an API server would.
fn write(snapshot: &mut Snapshot, change: Change, version: u32) {
    let stamp = |metadata: &mut ObjectMeta| {
        metadata.uid.get_or_insert_with(|| format!("uid-{version}"));
        metadata.resource_version = Some(version.to_string());
    };
    match change {
        Change::CreateService(mut service) | Change::UpdateService(mut service) => {
            stamp(&mut service.metadata);
            assign(&mut service);
            snapshot.service_seen(&Key::of(&*service), StandingService::of(*service));
        }
        Change::CreateSlice(mut slice) | Change::UpdateSlice(mut slice) => {
            stamp(&mut slice.metadata);
            let (service, slice) = StandingSlice::of(&slice);
            snapshot.slice_seen(&service, slice);
        }
        other => panic!("nothing is to be done by {other:?}"),
    }
}

fn assign(service: &mut Service) {
    if let Some(spec) = service.spec.as_mut() {
        let ip = spec.cluster_ip.get_or_insert_with(|| "10.96.0.1".to_owned()).clone();
        spec.cluster_ips = Some(vec![ip]);
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
}

criterion_group!(benches, deciding_who_may, deciding_whose_turn, counting, deciding_what_stands);
criterion_main!(benches);
