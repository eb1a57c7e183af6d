//! Turns Kubernetes objects into rows of the tables. Pure.

use crate::{
    egress::{pod_table::PodRow, port_table},
    ingress::service_table::{Endpoint, ServicePort, ServiceRow, SliceRow},
    tunnel::link_table::LinkRow,
};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint as KubeEndpoint, EndpointPort, EndpointSlice},
};
use kube::ResourceExt;
use linkspan_core::api::{
    labels::{EXPORT_PORTS, EXPORTED, GATEWAY, MIRRORED_SERVICE, SLICE_SERVICE_NAME},
    link::Link,
    pod::Pod,
    slice::{SliceError, SliceRoute},
    split::{SplitRoute, served_by},
};
use std::{collections::BTreeSet, sync::Arc};

/// What `service` exports; `None` when it exports nothing.
pub fn service(service: &Service) -> Option<ServiceRow> {
    let labels = service.labels();
    if labels.get(EXPORTED).map(String::as_str) != Some("true") || labels.contains_key(MIRRORED_SERVICE) {
        return None;
    }
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let only: Option<Vec<&str>> =
        service.annotations().get(EXPORT_PORTS).map(|text| text.split(',').map(str::trim).collect());
    let tcp = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == "TCP";
    let ports = spec.ports.iter().flatten().filter(|port| tcp(&port.protocol)).filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        let number = u16::try_from(port.port).ok()?;
        let wanted = only.as_ref().is_none_or(|only| {
            only.iter().any(|one| (!name.is_empty() && *one == name) || one.parse() == Ok(number))
        });
        wanted.then_some(ServicePort { name, port: number })
    });
    Some(ServiceRow {
        ports: ports.collect(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
    })
}

/// What a slice that is not ours says; `None` when it belongs to no Service.
pub fn endpoint_slice(slice: &EndpointSlice) -> Option<SliceRow> {
    let service = served_by(slice.labels(), SLICE_SERVICE_NAME)?.to_owned();
    let port = |port: &EndpointPort| {
        let tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        let number = u16::try_from(port.port?).ok()?;
        tcp.then(|| (port.name.clone().unwrap_or_default(), number))
    };
    let ports = slice.ports.iter().flatten().filter_map(port).collect();
    // Only the gateways' own zones matter; those of all pods would take memory for nothing.
    let zones = slice.endpoints.iter().filter(|_| service == GATEWAY).filter_map(zone).collect();
    Some(SliceRow { service, ports, endpoints: slice.endpoints.iter().flat_map(endpoint).collect(), zones })
}

fn zone(endpoint: &KubeEndpoint) -> Option<(String, String)> {
    Some((endpoint.target_ref.as_ref()?.name.clone()?, endpoint.zone.clone()?))
}

fn endpoint(endpoint: &KubeEndpoint) -> Vec<Endpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let (serving, terminating) = (conditions.serving == Some(true), conditions.terminating == Some(true));
    // All addresses of one endpoint are the same pod; Kubernetes uses the first.
    let ip = endpoint.addresses.first().and_then(|address| address.parse().ok());
    let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
    let made = ip.map(|ip| Endpoint {
        ip,
        hostname: endpoint.hostname.clone(),
        ready: conditions.ready != Some(false),
        serving_while_terminating: serving && terminating,
        for_zones: hints.map(|zone| zone.name.clone()).collect(),
    });
    made.into_iter().collect()
}

/// What one of our slices says.
///
/// # Errors
/// When its annotations were changed into something else.
pub fn our_slice(slice: &EndpointSlice) -> Result<port_table::SliceRow, SliceError> {
    let split = SplitRoute::from_annotations(slice.annotations()).transpose().map_err(SliceError::Split)?;
    let route = match &split {
        Some(split) => split.slice_route(&slice.namespace().unwrap_or_default()),
        None => SliceRoute::from_annotations(slice.annotations())?,
    };
    let ready = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
    });
    let ready_pods: BTreeSet<String> =
        ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone()).collect();
    let created = slice.creation_timestamp().map(|time| time.0.to_string()).unwrap_or_default();
    let declared = slice.ports.iter().flatten().filter(|port| port.app_protocol.as_deref() == Some("http"));
    let http = declared.filter_map(|port| u16::try_from(port.port?).ok()).collect();
    Ok(port_table::SliceRow { created, route, ready_pods, http, split: split.map(Arc::new) })
}

/// A pod that has addresses of its own and has not ended.
pub fn pod(pod: &Pod) -> Option<PodRow> {
    let alive = matches!(pod.status.phase.as_str(), "Pending" | "Running");
    if !alive || pod.spec.host_network {
        return None;
    }
    let ips: Vec<_> = pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
    let service_account = pod.spec.service_account_name.clone();
    (!ips.is_empty()).then_some(PodRow { service_account, ips })
}

/// A Link as gateways need it.
///
/// # Errors
/// One sentence on the field that cannot be used.
pub fn link(link: &Link) -> Result<LinkRow, String> {
    let settings = link.spec.settings().map_err(|e| e.to_string())?;
    let published =
        link.status.as_ref().map(|status| status.gateway_addresses.as_slice()).unwrap_or_default();
    Ok(LinkRow::new(settings, published))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn exported(labels: &Value, annotations: &Value, kind: &str) -> Option<Vec<u16>> {
        let object: Service = from_value(json!({
            "metadata": {"name": "web", "labels": labels, "annotations": annotations},
            "spec": {"type": kind, "ports": [
                {"name": "http", "port": 80}, {"name": "admin", "port": 9000, "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP"}]},
        }))
        .unwrap();
        service(&object).map(|row| row.ports.iter().map(|port| port.port).collect())
    }

    #[test]
    fn only_what_is_exported_is_exported() {
        let yes = json!({EXPORTED: "true"});
        assert_eq!(exported(&yes, &json!({}), "ClusterIP"), Some(vec![80, 9000]));
        assert_eq!(exported(&yes, &json!({EXPORT_PORTS: "http"}), "ClusterIP"), Some(vec![80]));
        assert_eq!(exported(&yes, &json!({EXPORT_PORTS: "9000, nothing"}), "ClusterIP"), Some(vec![9000]));
        assert_eq!(exported(&yes, &json!({EXPORT_PORTS: ""}), "ClusterIP"), Some(vec![]));
        assert_eq!(exported(&yes, &json!({}), "ExternalName"), None);
        assert_eq!(exported(&json!({EXPORTED: "True"}), &json!({}), "ClusterIP"), None);
        assert_eq!(exported(&json!({}), &json!({}), "ClusterIP"), None);
        let mirror = json!({EXPORTED: "true", MIRRORED_SERVICE: "true"});
        assert_eq!(exported(&mirror, &json!({}), "ClusterIP"), None, "no loops");
    }

    #[test]
    fn conditions_are_read_as_kubernetes_means_them() {
        let read = |conditions: Value| {
            let slice: EndpointSlice = from_value(json!({
                "metadata": {"name": "web-1", "labels": {SLICE_SERVICE_NAME: "web"}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
            }))
            .unwrap();
            let row = endpoint_slice(&slice).unwrap();
            (row.endpoints[0].ready, row.endpoints[0].serving_while_terminating)
        };
        assert_eq!(read(json!({})), (true, false));
        assert_eq!(read(json!({"ready": false, "serving": true, "terminating": true})), (false, true));
        assert_eq!(read(json!({"ready": false, "serving": true, "terminating": false})), (false, false));
    }

    #[test]
    fn hints_are_read_and_zones_of_gateways() {
        let read = |service: &str| {
            let slice: EndpointSlice = from_value(json!({
                "metadata": {"name": "a-1", "labels": {SLICE_SERVICE_NAME: service}}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "zone": "b", "hints": {"forZones": [{"name": "a"}]},
                    "targetRef": {"kind": "Pod", "name": "pod-1"}}],
            }))
            .unwrap();
            endpoint_slice(&slice).unwrap()
        };
        assert_eq!(read("web").endpoints[0].for_zones, ["a"]);
        assert!(read("web").zones.is_empty());
        assert_eq!(read(GATEWAY).zones["pod-1"], "b");
    }

    #[test]
    fn pods_without_addresses_of_their_own_are_nobody() {
        let read = |phase: &str, host_network: bool| {
            let object: Pod = from_value(json!({
                "metadata": {"name": "a"},
                "spec": {"hostNetwork": host_network, "serviceAccountName": "web", "containers": []},
                "status": {"phase": phase, "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
            }))
            .unwrap();
            pod(&object).map(|row| row.ips.len())
        };
        assert_eq!(read("Running", false), Some(2));
        assert_eq!(read("Running", true), None);
        assert_eq!(read("Succeeded", false), None);
    }

    #[test]
    fn our_slices_say_which_pods_take_traffic() {
        let slice: EndpointSlice = from_value(json!({
            "metadata": {"name": "api-west", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {
                "linkspan.dev/link": "west", "linkspan.dev/target": "api.default", "linkspan.dev/ports": "10007=8080"}},
            "addressType": "IPv4", "ports": [{"port": 10007, "appProtocol": "http"}, {"port": 10008}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "gw-1"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "gw-2"}}],
        }))
        .unwrap();
        let row = our_slice(&slice).unwrap();
        assert_eq!(row.route.ports[&10_007].to_string(), "api.default:8080");
        assert_eq!(row.ready_pods, BTreeSet::from(["gw-1".to_owned()]));
        assert_eq!(row.http, BTreeSet::from([10_007]));
        assert_eq!(row.created, "2026-01-01T00:00:00Z");
        assert!(our_slice(&EndpointSlice::default()).is_err());
    }
}
