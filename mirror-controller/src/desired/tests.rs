//! Mirrors and their slices, decided from snapshots.

use super::*;
use crate::{
    fixtures::{Api, export, link, pod, synced, verdicts},
    link::view::LinkView,
    status::verdict::Verdict,
};
use k8s_openapi::api::discovery::v1::EndpointConditions;
use linkspan_core::api::{
    exported_service::{ExportedMember, ExportedPort},
    slice::SliceRoute,
};

fn conditions(slice: &EndpointSlice) -> Vec<(bool, bool, bool)> {
    let all = |c: &EndpointConditions| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap());
    slice.endpoints.iter().map(|e| all(e.conditions.as_ref().unwrap())).collect()
}

fn verdict(snapshot: &Snapshot, link: &str, service: &str) -> &'static str {
    let mut verdicts = verdicts(snapshot, link).into_iter();
    match verdicts.find(|(origin, _)| origin.service == service && origin.host.is_none()) {
        Some((_, Verdict::Failed(f) | Verdict::Partly(f))) => f.reason,
        Some((_, Verdict::Mirrored)) => "Mirrored",
        Some((_, Verdict::Pending)) => "Pending",
        None => "",
    }
}

#[test]
fn a_mirror_carries_what_clients_and_gateways_need() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    let mut exported = export("my-api", &[8080]);
    exported.ports[0].app_protocol = Some("http".to_owned());
    exported.annotations =
        BTreeMap::from([("team".to_owned(), "a".to_owned()), ("x.io/y".to_owned(), "z".to_owned())]);
    snapshot.link_seen(LinkView { excluded_annotations: vec!["x.io/*".to_owned()], ..link("west") });
    snapshot.export_seen("west", &exported);
    api.settle(&mut snapshot);
    let service = serde_json::to_value(api.service("my-api-west")).unwrap();
    assert_eq!(
        service["metadata"]["labels"],
        serde_json::json!({"app": "my-api", "mirror.linkerd.io/mirrored-service": "true",
            "mirror.linkerd.io/mirrored": "true", "mirror.linkerd.io/cluster-name": "west"})
    );
    assert_eq!(
        service["metadata"]["annotations"],
        serde_json::json!({"team": "a", "mirror.linkerd.io/remote-svc-fq-name": "my-api.default.svc.cluster.local",
            "mirror.linkerd.io/remote-gateway-identity": "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway",
            "mirror.linkerd.io/remote-resource-version": "7", "linkspan.dev/service-namespace": "default"})
    );
    assert_eq!(
        service["spec"]["ports"],
        serde_json::json!([{"name": "p8080", "port": 8080, "protocol": "TCP", "targetPort": 10000, "appProtocol": "http"}])
    );
    assert!(service["spec"]["selector"].is_null());
    let slice = api.slice("my-api-west");
    let route = SliceRoute::from_annotations(slice.metadata.annotations.as_ref().unwrap()).unwrap();
    assert_eq!(route.link, "west");
    assert_eq!(route.ports[&10_000].to_string(), "my-api.default:8080");
    assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].uid, service["metadata"]["uid"]);
    assert_eq!(
        (slice.endpoints[0].addresses[0].as_str(), slice.endpoints[0].node_name.as_deref()),
        ("10.1.0.1", Some("node-1"))
    );
    assert_eq!(conditions(slice), [(true, true, false)]);
    assert_eq!(verdict(&snapshot, "west", "my-api"), "Mirrored");
}

#[test]
fn an_endpoint_is_ready_only_while_pod_link_port_and_remote_are() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", &export("api", &[80]));
    let mut told = |snapshot: &mut Snapshot, pods: Vec<(String, crate::gateways::table::GatewayPod)>| {
        snapshot.pods_reset(pods.into_iter().collect());
        api.settle(snapshot);
        conditions(api.slice("api-west"))
    };
    assert_eq!(
        told(&mut snapshot, vec![pod(1, &["west"], [10_000]), pod(2, &["west"], [])]),
        [(true, true, false), (false, false, false)]
    );
    assert_eq!(
        told(&mut snapshot, vec![pod(1, &[], [10_000])]),
        [(false, false, false)],
        "the link is not alive"
    );
    let mut leaving = pod(1, &["west"], [10_000]);
    leaving.1.report.as_mut().unwrap().draining = true;
    assert_eq!(told(&mut snapshot, vec![leaving.clone()]), [(false, true, true)]);
    leaving.1.heard = false;
    assert_eq!(
        told(&mut snapshot, vec![leaving, pod(2, &["west"], [10_000])]),
        [(false, false, false), (true, true, false)]
    );
    let mut unready = export("api", &[80]);
    unready.ports[0].ready = false;
    snapshot.export_seen("west", &unready);
    assert_eq!(
        told(&mut snapshot, vec![pod(1, &["west"], [10_000])]),
        [(false, false, false)],
        "nobody serves it there"
    );
}

#[test]
fn a_port_without_remote_endpoints_fails_alone() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    let mut exported = export("api", &[80, 81]);
    exported.ports[1].ready = false;
    snapshot.export_seen("west", &exported);
    api.settle(&mut snapshot);
    let ports: Vec<Option<i32>> = api.slice("api-west").ports.iter().flatten().map(|p| p.port).collect();
    assert_eq!(ports, [Some(10_000)]);
    assert_eq!(conditions(api.slice("api-west")), [(true, true, false)]);
}

#[test]
fn what_cannot_be_mirrored_is_told_and_nothing_is_made() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    let mut elsewhere = export("away", &[80]);
    elsewhere.namespace = "elsewhere".to_owned();
    let mut datagrams = export("dns", &[53]);
    datagrams.ports[0].protocol = "UDP".to_owned();
    let mut both = export("both", &[53]);
    both.ports.push(ExportedPort {
        name: "udp".to_owned(),
        port: 53,
        protocol: "UDP".to_owned(),
        ..ExportedPort::default()
    });
    let mut loops = export("loop", &[80]);
    loops.labels.insert("mirror.linkerd.io/mirrored-service".to_owned(), "true".to_owned());
    let long = "a".repeat(60);
    for spec in [elsewhere, datagrams, both, loops, export(&long, &[80])] {
        snapshot.export_seen("west", &spec);
    }
    api.settle(&mut snapshot);
    assert_eq!(verdict(&snapshot, "west", "away"), "MissingNamespace");
    assert_eq!(verdict(&snapshot, "west", "dns"), "InvalidService");
    assert_eq!(verdict(&snapshot, "west", "both"), "PortsLeftOut");
    assert_eq!(verdict(&snapshot, "west", &long), "InvalidService");
    assert_eq!(verdict(&snapshot, "west", "loop"), "", "not even selected");
    let names: Vec<&str> = api.services.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["both-west"]);
    snapshot.namespace_seen("elsewhere");
    api.settle(&mut snapshot);
    assert_eq!(verdict(&snapshot, "west", "away"), "Mirrored");
}

#[test]
fn of_two_links_that_want_one_name_the_one_that_has_it_keeps_it() {
    let (mut snapshot, mut api) = (synced(&["c", "b-c"]), Api::default());
    snapshot.export_seen("c", &export("a-b", &[80]));
    api.settle(&mut snapshot);
    snapshot.export_seen("b-c", &export("a", &[80]));
    assert!(api.settle(&mut snapshot).is_empty());
    assert_eq!((verdict(&snapshot, "c", "a-b"), verdict(&snapshot, "b-c", "a")), ("Mirrored", "NameTaken"));
    snapshot.export_gone("c", &Key::new("default", "a-b"));
    api.settle(&mut snapshot);
    assert_eq!(verdict(&snapshot, "b-c", "a"), "Mirrored");
    assert_eq!(
        api.service("a-b-c").metadata.labels.as_ref().unwrap()["mirror.linkerd.io/cluster-name"],
        "b-c"
    );
}

#[test]
fn a_headless_service_has_a_root_and_a_mirror_per_pod() {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    let mut exported = export("web", &[80]);
    exported.headless = true;
    let member = |host: &str| ExportedMember { hostname: host.to_owned(), ready: true };
    exported.members = vec![member("web-0"), member("web-1")];
    snapshot.export_seen("west", &exported);
    api.settle(&mut snapshot);
    assert_eq!(api.service("web-west").spec.as_ref().unwrap().cluster_ip.as_deref(), Some("None"));
    let pod_mirror = api.service("web-0-west");
    let ports: Vec<i32> = pod_mirror.spec.as_ref().unwrap().ports.iter().flatten().map(|p| p.port).collect();
    assert_eq!(ports, [8080, 80], "what clients of the pods dial, then what the Service says");
    let root = api.slice("web-west");
    let hosts: Vec<(&str, &str)> =
        root.endpoints.iter().map(|e| (e.hostname.as_deref().unwrap(), e.addresses[0].as_str())).collect();
    let ip = |name: &str| api.service(name).spec.as_ref().unwrap().cluster_ip.clone().unwrap();
    assert_eq!(hosts, [("web-0", ip("web-0-west").as_str()), ("web-1", ip("web-1-west").as_str())]);
    let route =
        SliceRoute::from_annotations(api.slice("web-0-west").metadata.annotations.as_ref().unwrap()).unwrap();
    assert_eq!(route.ports.values().next().unwrap().to_string(), "web-0.web.default:80");
    exported.members.pop();
    snapshot.export_seen("west", &exported);
    let writes = api.settle(&mut snapshot);
    assert!(
        writes.iter().all(|w| !format!("{w:?}").contains("\"web-0-west\"")),
        "the other pod is left alone"
    );
    assert!(!api.services.contains_key(&Key::new("default", "web-1-west")));
}
