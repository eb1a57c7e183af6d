//! The objects of a takeover: the shadow, and our slices of the apex. Pure.

use crate::{
    gateways::table::GatewayPod,
    liveness,
    snapshot::Key,
    split::{
        decide::Wanted,
        table::{Slices, user_selector},
    },
};
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    labels::{MANAGED_BY, SHADOW, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT, SPLIT_APEX},
    names::Target,
    split::{SplitPort, SplitRoute, shadow_name},
};
use std::collections::{BTreeMap, BTreeSet};

/// The Service for which Kubernetes keeps the slices of the apex's pods. Headless: nobody calls it.
pub fn shadow(key: &Key, apex: &Service) -> Service {
    let spec = apex.spec.clone().unwrap_or_default();
    let ports = spec.ports.iter().flatten().map(|port| ServicePort { node_port: None, ..port.clone() });
    let labels = [(SPLIT, SHADOW), (SPLIT_APEX, key.name.as_str())];
    Service {
        metadata: ObjectMeta {
            name: Some(shadow_name(&key.name)),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            owner_references: Some(vec![owner(key, apex)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            selector: Some(user_selector(apex)),
            ports: Some(ports.collect()),
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            ip_family_policy: spec.ip_family_policy,
            internal_traffic_policy: Some("Cluster".to_owned()),
            session_affinity: Some("None".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn owner(key: &Key, apex: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: key.name.clone(),
        uid: apex.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// What the gateways are told of the split, its ports at `assigned`.
pub fn route(key: &Key, wanted: &Wanted, assigned: &BTreeMap<Target, u16>) -> SplitRoute {
    let ports = wanted.ports.iter().filter_map(|port| {
        let told = SplitPort {
            port: port.port,
            name: port.name.clone(),
            protocol: port.protocol,
            backends: port.backends.clone(),
            matches: port.matches.clone(),
        };
        Some((*assigned.get(&target(key, port.port))?, told))
    });
    SplitRoute {
        split: wanted.split.name.clone(),
        apex: key.name.clone(),
        affinity: wanted.affinity,
        ports: ports.collect(),
    }
}

/// What a port of the apex is called where ports are given out.
pub fn target(apex: &Key, port: u16) -> Target {
    Target { host: None, service: apex.name.clone(), namespace: apex.namespace.clone(), port }
}

/// Our slices of the apex: the gateway pods, and its own pods as the last resort that Kubernetes uses by itself when no
/// gateway pod is ready.
pub fn slices(
    key: &Key,
    apex: &Service,
    route: &SplitRoute,
    pods: &BTreeMap<String, GatewayPod>,
    around: &Slices<'_>,
) -> Vec<EndpointSlice> {
    let families = apex.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    let gateways = families.iter().map(|family| {
        let family = if family == "IPv6" { "IPv6" } else { "IPv4" };
        let mut metadata = metadata(key, apex, format!("{}-split-{}", key.name, family.to_lowercase()));
        metadata.annotations = Some(BTreeMap::from([route.to_annotation()]));
        let ports = route.ports.iter().map(|(ours, port)| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(i32::from(*ours)),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        });
        let needed: BTreeSet<u16> = route.ports.keys().copied().collect();
        EndpointSlice {
            address_type: family.to_owned(),
            endpoints: liveness::endpoints(pods, family, |pod, blind| carries(pod, &needed, blind)),
            metadata,
            ports: Some(ports.collect()),
        }
    });
    gateways.chain(around.shadow.iter().map(|slice| last_resort(key, apex, slice))).collect()
}

/// Whether `pod` serves all of these ports.
pub fn carries(pod: &GatewayPod, needed: &BTreeSet<u16>, blind: bool) -> bool {
    let bound = pod.report.as_ref().is_some_and(|report| needed.is_subset(&report.bound));
    bound && liveness::speaks(pod, blind)
}

/// The apex's pods of one slice of the shadow, as endpoints that Kubernetes uses only when there is no ready one.
fn last_resort(key: &Key, apex: &Service, slice: &EndpointSlice) -> EndpointSlice {
    let name = format!("{}-local", slice.metadata.name.as_deref().unwrap_or_default());
    let serving = slice.endpoints.iter().filter(|e| takes_traffic(e));
    let endpoint = |endpoint: &Endpoint| Endpoint {
        conditions: Some(EndpointConditions {
            ready: Some(false),
            serving: Some(true),
            terminating: Some(true),
        }),
        hostname: None,
        hints: None,
        ..endpoint.clone()
    };
    EndpointSlice {
        address_type: slice.address_type.clone(),
        endpoints: serving.map(endpoint).collect(),
        metadata: metadata(key, apex, name),
        ports: slice.ports.clone(),
    }
}

/// Whether Kubernetes sends traffic to `endpoint`.
pub fn takes_traffic(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
}

/// `slice` as it stands, but so that nobody is sent to the gateway pods in it any more.
pub fn closed(slice: &EndpointSlice) -> EndpointSlice {
    let mut closed = slice.clone();
    for endpoint in &mut closed.endpoints {
        endpoint.conditions =
            Some(EndpointConditions { ready: Some(false), serving: Some(false), terminating: Some(false) });
    }
    closed
}

fn metadata(key: &Key, apex: &Service, name: String) -> ObjectMeta {
    let labels = [(SLICE_MANAGED_BY, MANAGED_BY), (SLICE_SERVICE_NAME, key.name.as_str()), (SPLIT, "true")];
    ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        owner_references: Some(vec![owner(key, apex)]),
        ..ObjectMeta::default()
    }
}
