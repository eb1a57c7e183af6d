//! What a Link says of itself, from verdicts and liveness.

use super::*;
use crate::{
    fixtures::{Api, export, now, synced},
    observe::watch::Lost,
};
use linkspan_core::api::{link::LinkSpec, reason::Reason};

fn link_with(status: Option<LinkStatus>) -> Link {
    let spec = LinkSpec {
        gateway_identity: Some("spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".to_owned()),
        ..LinkSpec::default()
    };
    let mut link = Link::new("west", spec);
    link.status = status;
    link
}

struct World {
    link: Link,
    snapshot: Snapshot,
    remote: RemoteState,
    liveness: LinkLiveness,
    access: LinkAccess,
}

impl World {
    fn healthy() -> Self {
        let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
        snapshot.export_seen("west", &export("api", &[80]));
        api.settle(&mut snapshot);
        Self {
            link: link_with(None),
            snapshot,
            remote: RemoteState {
                connected: Some(true),
                listed: true,
                gateway_addresses: vec!["192.0.2.1:4143".to_owned()],
                ..RemoteState::default()
            },
            liveness: LinkLiveness {
                alive: Some(true),
                latency_ms: Some(10.0),
                pods: 1,
                ..LinkLiveness::default()
            },
            access: LinkAccess::default(),
        }
    }

    fn status(&self, age: Duration) -> LinkStatus {
        let World { link, snapshot, remote, liveness, access } = self;
        of_link(&Facts { link, name: "west", snapshot, remote, liveness, access }, age, now())
    }

    fn says(&self, kind: &str) -> (String, String) {
        let status = self.status(Duration::ZERO);
        let condition = status.conditions.into_iter().find(|c| c.kind == kind).unwrap();
        (condition.status, condition.reason)
    }
}

fn said(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_healthy_link_says_so_and_then_nothing_new() {
    let mut world = World::healthy();
    let status = world.status(Duration::MAX);
    assert_eq!(status.services, Some(ServiceCounts { mirrored: 1, failing: 0 }));
    assert_eq!(status.gateway_addresses, ["192.0.2.1:4143"]);
    assert_eq!(world.says("GatewayAlive"), said("True", "Alive"));
    assert_eq!(world.says("Connected"), said("True", "Connected"));
    assert_eq!(world.says("Synced"), said("True", "Synced"));
    world.link = link_with(Some(status.clone()));
    assert_eq!(world.status(Duration::MAX), status);
}

#[test]
fn each_fault_is_told_by_its_own_condition() {
    let mut world = World::healthy();
    world.remote.connected = Some(false);
    world.remote.lost = Some(Lost { reason: "Unauthorized", message: "401".to_owned() });
    assert_eq!(world.says("Connected"), said("False", "Unauthorized"));
    assert_eq!(world.says("Synced"), said("False", "Disconnected"));
    assert_eq!(world.says("GatewayAlive"), said("True", "Alive"), "liveness goes on");
    let mut world = World::healthy();
    world.liveness = LinkLiveness {
        alive: Some(false),
        reason: Some(Reason::TlsTrust),
        pods: 1,
        ..LinkLiveness::default()
    };
    assert_eq!(world.says("GatewayAlive"), said("False", "TlsTrust"));
    world.liveness = LinkLiveness { alive: Some(true), stale: true, pods: 1, ..LinkLiveness::default() };
    assert_eq!(world.says("GatewayAlive"), said("True", "LastKnown"));
    world.link.spec.gateway_identity = Some("west".to_owned());
    assert_eq!(world.says("GatewayAlive"), said("False", "InvalidLink"));
}

#[test]
fn a_latency_is_written_only_when_it_moved_and_not_often() {
    let mut world = World::healthy();
    let first = world.status(Duration::MAX);
    assert_eq!(first.latency_ms, Some(10.0));
    world.link = link_with(Some(first));
    let minute = Duration::from_secs(60);
    for (ms, age, written) in
        [(14.9, minute, 10.0), (15.0, minute, 15.0), (99.0, minute / 2, 10.0), (1.0, minute, 1.0)]
    {
        world.liveness.latency_ms = Some(ms);
        assert_eq!(world.status(age).latency_ms, Some(written), "{ms}");
    }
    world.liveness.latency_ms = Some(104.0);
    world.link.status.as_mut().unwrap().latency_ms = Some(100.0);
    assert_eq!(world.status(minute).latency_ms, Some(100.0));
}

#[test]
fn at_most_a_hundred_services_are_listed_and_all_are_counted() {
    let mut world = World::healthy();
    for n in 0..150 {
        let mut elsewhere = export(&format!("svc-{n}"), &[80]);
        elsewhere.namespace = "elsewhere".to_owned();
        world.snapshot.export_seen("west", &elsewhere);
    }
    Api::default().settle(&mut world.snapshot);
    let status = world.status(Duration::MAX);
    assert_eq!(status.services, Some(ServiceCounts { mirrored: 1, failing: 150 }));
    assert_eq!(status.mirror_services.len(), 100);
    assert_eq!(status.mirror_services[0].conditions[0].reason, "MissingNamespace");
    assert_eq!(world.says("Synced"), said("True", "SomeFailing"));
}

#[test]
fn addresses_that_vanish_there_are_kept_here() {
    let mut world = World::healthy();
    world.link = link_with(Some(world.status(Duration::MAX)));
    world.remote.gateway_addresses.clear();
    assert_eq!(world.status(Duration::MAX).gateway_addresses, ["192.0.2.1:4143"]);
}

#[test]
fn what_is_not_known_yet_does_not_undo_what_was_told() {
    let mut world = World::healthy();
    world.link = link_with(Some(world.status(Duration::MAX)));
    world.snapshot = synced(&["west"]);
    world.remote.listed = false;
    assert_eq!(world.status(Duration::MAX).services, Some(ServiceCounts { mirrored: 1, failing: 0 }));
    world.remote.listed = true;
    world.snapshot.export_seen("west", &export("api", &[80]));
    assert_eq!(
        world.status(Duration::MAX).services,
        Some(ServiceCounts { mirrored: 1, failing: 0 }),
        "not decided"
    );
    world.snapshot.export_gone("west", &crate::snapshot::Key::new("default", "api"));
    assert_eq!(world.status(Duration::MAX).services, Some(ServiceCounts::default()));
}
