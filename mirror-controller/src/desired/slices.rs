//! What a mirror's EndpointSlices look like: this cluster's gateway pods at the mirror's own ports.

use crate::{
    desired::ports::MirrorPort,
    gateways::table::GatewayPod,
    link::view::LinkView,
    liveness,
    snapshot::{
        Key, Snapshot,
        standing::{Family, StandingService, StandingSlice, endpoints_print},
    },
};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{CLUSTER_NAME, MANAGED_BY, REMOTE_GATEWAY_IDENTITY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
    slice::SliceRoute,
};
use std::collections::{BTreeMap, BTreeSet};

/// Slices of a mirror that leads through the gateway.
pub(super) fn of_mirror(
    snapshot: &Snapshot,
    key: &Key,
    link: &LinkView,
    ports: &[MirrorPort],
    standing: &StandingService,
) -> Vec<EndpointSlice> {
    let route = SliceRoute {
        link: link.name.clone(),
        ports: ports.iter().map(|p| (p.target, p.leads_to.clone())).collect(),
    };
    let listed = listed(&snapshot.pods.items, &link.name, ports);
    let needed: BTreeSet<u16> = listed.iter().map(|p| p.target).collect();
    let remote_ready = listed.iter().any(|p| p.ready);
    standing
        .families
        .iter()
        .copied()
        .map(|family| {
            let mut metadata = metadata(key, link, standing, family);
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.extend(route.to_annotations());
            EndpointSlice {
                address_type: family.as_str().to_owned(),
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
    family: Family,
    link: &str,
    needed: &BTreeSet<u16>,
    remote_ready: bool,
) -> Vec<Endpoint> {
    liveness::endpoints(pods, family.as_str(), |pod, blind| {
        let bound = pod.report.as_ref().is_some_and(|r| needed.is_subset(&r.bound));
        remote_ready && bound && liveness::serves(pod, link, blind)
    })
}

/// Slices of a headless root: each pod's host name leads to the address of that pod's own mirror.
pub(super) fn of_root(
    snapshot: &Snapshot,
    key: &Key,
    link: &LinkView,
    export: &ExportedServiceSpec,
    standing: &StandingService,
) -> Vec<EndpointSlice> {
    let port = |p: &linkspan_core::api::exported_service::ExportedPort| EndpointPort {
        name: Some(p.name.clone()),
        port: Some(i32::from(p.target_port.unwrap_or(p.port))),
        protocol: Some("TCP".to_owned()),
        app_protocol: p.app_protocol.clone(),
    };
    let ports: Vec<EndpointPort> = export.ports.iter().filter(|p| p.protocol == "TCP").map(port).collect();
    // A root without selector is given every family, also one that the pods' mirrors have no address of.
    standing
        .families
        .iter()
        .copied()
        .filter_map(|family| {
            let members = export.members.iter().filter_map(|member| {
                let mirror = Key::new(&key.namespace, format!("{}-{}", member.hostname, link.cluster_name));
                let ip = snapshot.service(&mirror)?.ips.iter().find(|ip| family.has(**ip))?;
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
                address_type: family.as_str().to_owned(),
                endpoints,
                metadata: metadata(key, link, standing, family),
                ports: Some(ports.clone()),
            })
        })
        .collect()
}

fn metadata(key: &Key, link: &LinkView, standing: &StandingService, family: Family) -> ObjectMeta {
    let labels = [
        (SLICE_MANAGED_BY, MANAGED_BY),
        (SLICE_SERVICE_NAME, key.name.as_str()),
        (CLUSTER_NAME, link.name.as_str()),
    ];
    let identity = (REMOTE_GATEWAY_IDENTITY.to_owned(), link.gateway_identity.clone());
    ObjectMeta {
        name: Some(format!("{}-{}", key.name, family.as_str().to_lowercase())),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        annotations: Some(BTreeMap::from([identity])),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: key.name.clone(),
            uid: standing.state.uid.to_string(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

/// The endpoints that the slice `standing` should have while its link's target is not listed: the gateway pods that
/// carry flows now. `None` when it has them, and for a headless root, whose endpoints are no gateway pods.
pub fn held(snapshot: &Snapshot, standing: &StandingSlice) -> Option<Vec<Endpoint>> {
    let link = standing.link.as_deref().filter(|_| !standing.ports.is_empty())?;
    let needed = standing.ports.iter().copied().collect();
    let endpoints = endpoints(&snapshot.pods.items, standing.family, link, &needed, true);
    (endpoints_print(&endpoints) != standing.endpoints).then_some(endpoints)
}
