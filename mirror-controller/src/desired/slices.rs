//! What a mirror's EndpointSlices look like: this cluster's gateway pods at the mirror's own ports.

use crate::{
    desired::ports::MirrorPort,
    gateways::table::GatewayPod,
    link::view::LinkView,
    liveness,
    snapshot::{Key, Snapshot, label},
};
use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{CLUSTER_NAME, MANAGED_BY, REMOTE_GATEWAY_IDENTITY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
    slice::SliceRoute,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The address families of `service`, as slices call them.
fn families(service: &Service) -> impl Iterator<Item = &'static str> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    families.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" })
}

/// Slices of a mirror that leads through the gateway.
pub(super) fn of_mirror(
    snapshot: &Snapshot,
    key: &Key,
    link: &LinkView,
    ports: &[MirrorPort],
    standing: &Service,
) -> Vec<EndpointSlice> {
    let route = SliceRoute {
        link: link.name.clone(),
        ports: ports.iter().map(|p| (p.target, p.leads_to.clone())).collect(),
    };
    let listed = listed(&snapshot.pods.items, &link.name, ports);
    let needed: BTreeSet<u16> = listed.iter().map(|p| p.target).collect();
    let remote_ready = listed.iter().any(|p| p.ready);
    families(standing)
        .map(|family| {
            let mut metadata = metadata(key, link, standing, family);
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.extend(route.to_annotations());
            EndpointSlice {
                address_type: family.to_owned(),
                endpoints: endpoints(&snapshot.pods.items, family, &link.name, &needed, remote_ready),
                metadata,
                ports: Some(listed.iter().map(|p| slice_port(p)).collect()),
            }
        })
        .collect()
}

/// The ports that a slice names: those that lead somewhere now, so that a port whose pods are gone fails at once while
/// the others work; all of them when none does.
fn listed<'a>(
    pods: &BTreeMap<String, GatewayPod>,
    link: &str,
    ports: &'a [MirrorPort],
) -> Vec<&'a MirrorPort> {
    let blind = liveness::all_silent(pods);
    let bound = |port: u16| {
        let serving = pods.values().filter(|pod| liveness::serves(pod, link, blind));
        serving.filter_map(|pod| pod.report.as_ref()).any(|report| report.bound.contains(&port))
    };
    let usable: Vec<&MirrorPort> = ports.iter().filter(|p| p.ready && bound(p.target)).collect();
    if usable.is_empty() { ports.iter().collect() } else { usable }
}

fn slice_port(port: &MirrorPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(i32::from(port.target)),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The gateway pods as endpoints; ready where they can carry flows of `link` on all `needed` ports.
fn endpoints(
    pods: &BTreeMap<String, GatewayPod>,
    family: &str,
    link: &str,
    needed: &BTreeSet<u16>,
    remote_ready: bool,
) -> Vec<Endpoint> {
    let blind = liveness::all_silent(pods);
    let address = |pod: &GatewayPod| pod.place.ips.iter().find(|ip| is_family(**ip, family)).copied();
    pods.values()
        .filter_map(|pod| Some((pod, address(pod)?)))
        .map(|(pod, ip)| {
            let bound = pod.report.as_ref().is_some_and(|r| needed.is_subset(&r.bound));
            let usable = remote_ready && bound && liveness::serves(pod, link, blind);
            Endpoint {
                addresses: vec![ip.to_string()],
                conditions: Some(liveness::conditions(pod, usable)),
                node_name: pod.place.node.clone(),
                // A pod that leaves looks for its own name here to learn when nobody is sent to it any more.
                target_ref: pod.place.target.clone(),
                zone: pod.place.zone.clone(),
                ..Endpoint::default()
            }
        })
        .collect()
}

fn is_family(ip: IpAddr, family: &str) -> bool {
    ip.is_ipv6() == (family == "IPv6")
}

/// Slices of a headless root: each pod's host name leads to the address of that pod's own mirror.
pub(super) fn of_root(
    snapshot: &Snapshot,
    key: &Key,
    link: &LinkView,
    export: &ExportedServiceSpec,
    standing: &Service,
) -> Vec<EndpointSlice> {
    let port = |p: &linkspan_core::api::exported_service::ExportedPort| EndpointPort {
        name: Some(p.name.clone()),
        port: Some(i32::from(p.target_port.unwrap_or(p.port))),
        protocol: Some("TCP".to_owned()),
        app_protocol: p.app_protocol.clone(),
    };
    let ports: Vec<EndpointPort> = export.ports.iter().filter(|p| p.protocol == "TCP").map(port).collect();
    // A root without selector is given every family, also one that the pods' mirrors have no address of.
    families(standing)
        .filter_map(|family| {
            let members = export.members.iter().filter_map(|member| {
                let mirror = Key::new(&key.namespace, format!("{}-{}", member.hostname, link.cluster_name));
                let ip = cluster_ip(snapshot.services.items.get(&mirror)?, family)?;
                let (ready, leaves) = (Some(member.ready), Some(false));
                Some(Endpoint {
                    addresses: vec![ip.to_string()],
                    conditions: Some(EndpointConditions { ready, serving: ready, terminating: leaves }),
                    hostname: Some(member.hostname.clone()),
                    ..Endpoint::default()
                })
            });
            let endpoints: Vec<Endpoint> = members.collect();
            (!endpoints.is_empty()).then(|| EndpointSlice {
                address_type: family.to_owned(),
                endpoints,
                metadata: metadata(key, link, standing, family),
                ports: Some(ports.clone()),
            })
        })
        .collect()
}

fn cluster_ip(service: &Service, family: &str) -> Option<IpAddr> {
    let ips = service.spec.as_ref()?.cluster_ips.as_deref()?;
    ips.iter().filter_map(|ip| ip.parse().ok()).find(|ip| is_family(*ip, family))
}

fn metadata(key: &Key, link: &LinkView, standing: &Service, family: &str) -> ObjectMeta {
    let labels = [
        (SLICE_MANAGED_BY, MANAGED_BY),
        (SLICE_SERVICE_NAME, key.name.as_str()),
        (CLUSTER_NAME, link.name.as_str()),
    ];
    let identity = (REMOTE_GATEWAY_IDENTITY.to_owned(), link.gateway_identity.clone());
    ObjectMeta {
        name: Some(format!("{}-{}", key.name, family.to_lowercase())),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        annotations: Some(BTreeMap::from([identity])),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: key.name.clone(),
            uid: standing.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// Our slices under `key` as they should look while their link's target is not listed: as they are, but with the
/// gateway pods that carry flows now.
pub fn held(snapshot: &Snapshot, key: &Key) -> Vec<EndpointSlice> {
    let slices = snapshot.slices_of(key).into_iter().cloned();
    slices
        .map(|mut slice| {
            let annotations = slice.metadata.annotations.clone().unwrap_or_default();
            // A headless root has no ports of its own, and its endpoints are no gateway pods.
            if let Ok(route) = SliceRoute::from_annotations(&annotations) {
                let ports = slice.ports.iter().flatten().filter_map(|p| u16::try_from(p.port?).ok());
                let needed = ports.filter(|port| route.ports.contains_key(port)).collect();
                let link = label(&slice.metadata, CLUSTER_NAME).unwrap_or(&route.link).to_owned();
                slice.endpoints = endpoints(&snapshot.pods.items, &slice.address_type, &link, &needed, true);
            }
            slice
        })
        .collect()
}
