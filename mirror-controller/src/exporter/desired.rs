//! What is published of one exported Service: a pure function of the Service and its slices.

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::ResourceExt;
use linkspan_core::api::{
    copying,
    exported_service::{ExportedMember, ExportedPort, ExportedService, ExportedServiceSpec},
    labels::{EXPORT_NAMESPACE, EXPORT_PORTS, EXPORTED, MIRRORED_SERVICE},
    names,
};
use std::collections::{BTreeMap, BTreeSet};

/// Whether `service` is exported: labelled so, no mirror itself, and no mere name of something else.
pub fn is_exported(service: &Service) -> bool {
    let labels = service.labels();
    let is_name = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    !is_name
        && labels.get(EXPORTED).is_some_and(|value| value == "true")
        && !labels.contains_key(MIRRORED_SERVICE)
}

/// What is published, in `namespace`, of `service` with its `slices`.
pub fn export_of(service: &Service, slices: &[&EndpointSlice], namespace: &str) -> ExportedService {
    let (service_namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let spec = service.spec.clone().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let narrowed = service.annotations().get(EXPORT_PORTS);
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.iter().filter(|port| narrowed.is_none_or(|list| is_listed(port, list)));
    let mut export = ExportedService::new(
        &names::export_name(&service_namespace, &name),
        ExportedServiceSpec {
            resource_version: service.resource_version().unwrap_or_default(),
            labels: service.labels().clone(),
            annotations: copying::copied(service.annotations(), &[]),
            headless,
            ports: ports.filter_map(|port| exported_port(port, slices)).collect(),
            members: if headless { members(slices) } else { Vec::new() },
            namespace: service_namespace.clone(),
            name,
        },
    );
    export.metadata.namespace = Some(namespace.to_owned());
    export.metadata.labels = Some(BTreeMap::from([(EXPORT_NAMESPACE.to_owned(), service_namespace)]));
    export
}

/// Whether the annotation's `list` names `port`, by name or number.
fn is_listed(port: &ServicePort, list: &str) -> bool {
    let number = port.port.to_string();
    list.split(',').map(str::trim).any(|item| item == number || Some(item) == port.name.as_deref())
}

fn exported_port(port: &ServicePort, slices: &[&EndpointSlice]) -> Option<ExportedPort> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let name = port.name.clone().unwrap_or_default();
    let mut targets = BTreeSet::new();
    let mut ready = false;
    for slice in slices {
        let of_port = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && p.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        if let Some(target) = of_port.and_then(|p| p.port) {
            targets.insert(target);
            ready |= slice.endpoints.iter().any(takes_traffic);
        }
    }
    let target = if targets.len() == 1 { targets.pop_first() } else { None };
    Some(ExportedPort {
        port: u16::try_from(port.port).ok()?,
        app_protocol: port.app_protocol.clone(),
        target_port: target.and_then(|t| u16::try_from(t).ok()),
        name,
        protocol,
        ready,
    })
}

/// Whether `endpoint` takes traffic. An absent condition counts as met; where all are ending, those that still serve
/// are used.
fn takes_traffic(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    ready || (conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false))
}

fn members(slices: &[&EndpointSlice]) -> Vec<ExportedMember> {
    let mut members: BTreeMap<String, bool> = BTreeMap::new();
    for endpoint in slices.iter().flat_map(|slice| slice.endpoints.iter()) {
        if let Some(host) = endpoint.hostname.as_ref().filter(|host| !host.is_empty()) {
            *members.entry(host.clone()).or_default() |= takes_traffic(endpoint);
        }
    }
    members.into_iter().map(|(hostname, ready)| ExportedMember { hostname, ready }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn service(spec: &Value) -> Service {
        from_value(json!({
            "metadata": {
                "name": "my-api", "namespace": "default", "resourceVersion": "7",
                "labels": {"mirror.linkerd.io/exported": "true", "app": "my-api"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"}
            },
            "spec": spec
        }))
        .unwrap()
    }

    fn slice(endpoints: &Value) -> EndpointSlice {
        from_value(json!({
            "metadata": {"name": "my-api-x", "namespace": "default"}, "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]
        }))
        .unwrap()
    }

    #[test]
    fn ports_and_readiness_are_published_and_tracking_marks_are_not() {
        let service = service(&json!({"clusterIP": "10.0.0.1", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}));
        let ready = slice(&json!([{"addresses": ["10.1.0.1"], "conditions": {}}]));
        let export = export_of(&service, &[&ready], "linkspan");
        assert_eq!(export.metadata.name.as_deref(), Some("default.my-api"));
        let http = &export.spec.ports[0];
        assert_eq!(
            (http.ready, http.target_port, http.app_protocol.as_deref()),
            (true, Some(8080), Some("http"))
        );
        assert_eq!((export.spec.ports[1].protocol.as_str(), export.spec.ports[1].ready), ("UDP", false));
        assert_eq!(export.spec.annotations, BTreeMap::from([("team".to_owned(), "a".to_owned())]));
        assert_eq!(export.spec.labels["mirror.linkerd.io/exported"], "true", "links select by it");
        let gone = slice(
            &json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false, "serving": false, "terminating": false}}]),
        );
        assert!(!export_of(&service, &[&gone], "linkspan").spec.ports[0].ready);
        let ending = slice(
            &json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
        );
        assert!(export_of(&service, &[&ending], "linkspan").spec.ports[0].ready);
    }

    #[test]
    fn an_annotation_narrows_the_ports_by_name_or_number() {
        let mut service = service(
            &json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}, {"name": "c", "port": 3}]}),
        );
        let annotations = service.metadata.annotations.get_or_insert_default();
        annotations.insert(EXPORT_PORTS.to_owned(), "a, 3".to_owned());
        let ports: Vec<u16> =
            export_of(&service, &[], "linkspan").spec.ports.iter().map(|p| p.port).collect();
        assert_eq!(ports, [1, 3]);
    }

    #[test]
    fn members_of_a_headless_service_are_its_pods_with_a_host_name() {
        let service = service(&json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        let slice = slice(&json!([
            {"addresses": ["10.1.0.2"], "hostname": "web-1", "conditions": {"ready": false}},
            {"addresses": ["10.1.0.1"], "hostname": "web-0", "conditions": {"ready": true}},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": true}}
        ]));
        let export = export_of(&service, &[&slice], "linkspan").spec;
        assert!(export.headless);
        let member = |hostname: &str, ready| ExportedMember { hostname: hostname.to_owned(), ready };
        assert_eq!(export.members, [member("web-0", true), member("web-1", false)]);
    }

    #[test]
    fn a_mirror_is_never_exported() {
        let mut service = service(&json!({}));
        assert!(is_exported(&service));
        let labels = service.metadata.labels.get_or_insert_default();
        labels.insert(MIRRORED_SERVICE.to_owned(), "true".to_owned());
        assert!(!is_exported(&service));
    }
}
