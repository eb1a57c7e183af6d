//! For tests: values to start from, and an API server that is a value.

use crate::{
    diff::Change,
    gateways::table::{GatewayPod, Place, Report},
    link::view::LinkView,
    plan::plan,
    ports::{Ports, Saved},
    snapshot::{
        Key, Origin, Snapshot,
        standing::{StandingService, StandingSlice, State},
    },
    status::verdict::Verdict,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry},
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    exported_service::{ExportedPort, ExportedServiceSpec},
    gateway_report::LinkHealth,
    labels::EXPORTED,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// Link `name`, which selects what is exported.
pub(crate) fn link(name: &str) -> LinkView {
    LinkView {
        name: name.to_owned(),
        cluster_name: name.to_owned(),
        domain: "cluster.local".to_owned(),
        remote_namespace: "linkspan".to_owned(),
        gateway_identity: "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".to_owned(),
        selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(EXPORTED.to_owned(), "true".to_owned())])),
            ..LabelSelector::default()
        }),
        ..LinkView::default()
    }
}

/// Service `name` in `default` with these TCP ports, all ready.
pub(crate) fn export(name: &str, ports: &[u16]) -> ExportedServiceSpec {
    let port = |port: &u16| ExportedPort {
        name: format!("p{port}"),
        port: *port,
        protocol: "TCP".to_owned(),
        target_port: Some(port + 8000),
        ready: true,
        ..ExportedPort::default()
    };
    ExportedServiceSpec {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        resource_version: "7".to_owned(),
        labels: BTreeMap::from([
            (EXPORTED.to_owned(), "true".to_owned()),
            ("app".to_owned(), name.to_owned()),
        ]),
        ports: ports.iter().map(port).collect(),
        ..ExportedServiceSpec::default()
    }
}

/// A pod at 10.1.0.`n` that reaches `links` and listens on `bound`.
pub(crate) fn pod(n: u8, links: &[&str], bound: impl IntoIterator<Item = u16>) -> (String, GatewayPod) {
    let health = LinkHealth { alive: Some(true), ..LinkHealth::default() };
    let pod = GatewayPod {
        place: Place {
            ips: BTreeSet::from([[10, 1, 0, n].into()]),
            node: Some(format!("node-{n}")),
            kube_ready: true,
            ..Place::default()
        },
        report: Some(Report {
            links: links.iter().map(|l| ((*l).to_owned(), health.clone())).collect(),
            bound: bound.into_iter().collect(),
            ..Report::default()
        }),
        heard: true,
    };
    (format!("gw-{n}"), pod)
}

/// A snapshot whose local side is listed: namespace `default`, these links (targets listed, nothing exported), and one
/// gateway pod that serves them all on every port from 10000 to 10100.
pub(crate) fn synced(links: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.links_reset(links.iter().map(|l| link(l)).collect());
    snapshot.namespaces_reset(["default".to_owned()]);
    snapshot.services_reset(vec![]);
    snapshot.slices_reset(vec![]);
    snapshot.pods_reset(BTreeMap::from([pod(1, links, 10_000..=10_100)]));
    snapshot.ports = Some(Ports::restore((10_000, 10_100), Saved::default(), []));
    for link in links {
        snapshot.exports_reset(link, vec![]);
    }
    snapshot
}

/// What became of each that link `link` selects: of all that stand or are told.
pub(crate) fn verdicts(snapshot: &Snapshot, link: &str) -> Vec<(Origin, Verdict)> {
    let mut all: Vec<(Origin, Verdict)> =
        snapshot.troubles(link).map(|(origin, verdict)| (origin.clone(), verdict.clone())).collect();
    let mut keys = snapshot.clone();
    keys.mark_all();
    for key in keys.take_dirty(usize::MAX) {
        for origin in snapshot.claims(&key).filter(|origin| origin.link == link) {
            if all.iter().all(|(known, _)| known != origin) {
                all.push((origin.clone(), Verdict::Mirrored));
            }
        }
    }
    all
}

/// Somebody made or changed `service`.
pub(crate) fn service_seen(snapshot: &mut Snapshot, service: Service) {
    snapshot.service_seen(&Key::of(&service), StandingService::of(service));
}

/// Somebody deleted `service`.
pub(crate) fn service_gone(snapshot: &mut Snapshot, service: &Service) {
    snapshot.service_gone(&Key::of(service), &State::of(service));
}

/// `service` as it is kept.
pub(crate) fn standing(service: &Service) -> StandingService {
    StandingService::of(service.clone())
}

/// What an API server would hold, and what it assigns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Api {
    pub(crate) services: BTreeMap<Key, Service>,
    pub(crate) slices: BTreeMap<Key, EndpointSlice>,
    version: u64,
}

impl Api {
    fn stamp(&mut self, metadata: &mut ObjectMeta) {
        self.version += 1;
        metadata.uid.get_or_insert_with(|| format!("uid-{}", self.version));
        metadata.resource_version = Some(self.version.to_string());
        metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    }

    /// Stores a Service as somebody else would.
    pub(crate) fn put(&mut self, mut service: Service) -> Service {
        self.stamp(&mut service.metadata);
        if let Some(spec) = service.spec.as_mut() {
            let given = || format!("10.96.{}.{}", self.version / 250, self.version % 250);
            let ip = spec.cluster_ip.get_or_insert_with(given).clone();
            spec.cluster_ips = Some(vec![ip]);
            spec.ip_families = Some(vec!["IPv4".to_owned()]);
        }
        self.services.insert(Key::of(&service), service.clone());
        service
    }

    fn put_slice(&mut self, snapshot: &mut Snapshot, mut slice: EndpointSlice) {
        self.stamp(&mut slice.metadata);
        let (home, standing) = StandingSlice::of(&slice);
        self.slices.insert(Key::of(&slice), slice);
        snapshot.slice_seen(&home, standing);
    }

    /// Carries out a change, as the writer would, and tells `snapshot`.
    pub(crate) fn write(&mut self, snapshot: &mut Snapshot, change: Change) {
        match change {
            Change::CreateService(o) => {
                assert!(!self.services.contains_key(&Key::of(&*o)), "exists already");
                service_seen(snapshot, self.put(*o));
            }
            Change::UpdateService(o) => {
                let standing = &self.services[&Key::of(&*o)];
                assert_eq!(standing.metadata.resource_version, o.metadata.resource_version, "a stale update");
                service_seen(snapshot, self.put(*o));
            }
            Change::DeleteService(seen) => {
                let gone = self.services.remove(&seen.key).expect("what is deleted stands");
                service_gone(snapshot, &gone);
            }
            Change::CreateSlice(o) | Change::UpdateSlice(o) => self.put_slice(snapshot, *o),
            Change::PlaceEndpoints(seen, endpoints) => {
                let standing = self.slices[&seen.key].clone();
                assert_eq!(State::of(&standing), seen.state, "a stale update");
                self.put_slice(snapshot, EndpointSlice { endpoints, ..standing });
            }
            Change::DeleteSlice(seen) => {
                let gone = self.slices.remove(&seen.key).expect("what is deleted stands");
                let (home, slice) = StandingSlice::of(&gone);
                snapshot.slice_gone(&home, &slice.name, &slice.state);
                snapshot.kubernetes_slice_gone(&seen.key, &seen.state.uid);
            }
            Change::CreateNamespace(o) => {
                snapshot.namespace_seen(o.metadata.name.as_deref().unwrap_or_default());
            }
            other => panic!("no mirror is written by {other:?}"),
        }
    }

    /// Plans and writes until nothing is left to do; all writes.
    pub(crate) fn settle(&mut self, snapshot: &mut Snapshot) -> Vec<Change> {
        let mut all = Vec::new();
        for _ in 0..1000 {
            let dirty = snapshot.take_dirty(usize::MAX);
            if dirty.is_empty() {
                return all;
            }
            for key in dirty {
                for change in plan(snapshot, &key, now()) {
                    all.push(change.clone());
                    self.write(snapshot, change);
                }
            }
        }
        panic!("it never comes to rest");
    }

    pub(crate) fn slice(&self, service: &str) -> &EndpointSlice {
        &self.slices[&Key::new("default", format!("{service}-ipv4"))]
    }

    pub(crate) fn service(&self, name: &str) -> &Service {
        &self.services[&Key::new("default", name)]
    }
}
