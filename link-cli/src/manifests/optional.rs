//! What an installation has only when asked for: NetworkPolicies, a PodMonitor.

use crate::manifests::{
    object::{Object, metadata},
    values::Values,
    workloads::{CONTROLLER_COMPONENT, GATEWAY_COMPONENT},
};
use linkspan_core::api::{
    crds::PART_OF,
    labels::{ADMIN_PORT, ADMIN_PORT_NAME, COMPONENT, CONTROLLER, EGRESS_PORTS, GATEWAY, GATEWAY_PORT},
};
use serde_json::{Value, json};

/// Who may connect to our pods: anybody to the tunnel's port, pods of this cluster to the mirrors' ports, and to the
/// admin pages the controller and whom the values name.
pub fn network_policies(namespace: &str, values: &Values) -> Vec<Object> {
    if !values.network_policies.enabled {
        return vec![];
    }
    let port = |port: u16| json!({"protocol": "TCP", "port": port});
    let (first, last) = EGRESS_PORTS;
    let controller = json!({"podSelector": {"matchLabels": {COMPONENT: CONTROLLER_COMPONENT}}});
    let named = &values.network_policies.admin_from;
    let readers: Vec<&Value> = [&controller].into_iter().chain(named).collect();
    let gateway = json!([
        {"ports": [port(GATEWAY_PORT)]},
        {
            "from": [{"namespaceSelector": {}}],
            "ports": [{"protocol": "TCP", "port": first, "endPort": last}],
        },
        {"from": readers, "ports": [port(ADMIN_PORT)]},
    ]);
    // A rule that names nobody would admit everybody.
    let admin =
        if named.is_empty() { json!([]) } else { json!([{"from": named, "ports": [port(ADMIN_PORT)]}]) };
    vec![
        network_policy(namespace, GATEWAY, GATEWAY_COMPONENT, &gateway),
        network_policy(namespace, CONTROLLER, CONTROLLER_COMPONENT, &admin),
    ]
}

fn network_policy(namespace: &str, name: &str, component: &str, ingress: &Value) -> Object {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(namespace, name, &[(COMPONENT, component)]),
        "spec": {
            "podSelector": {"matchLabels": {COMPONENT: component}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    })
}

/// Tells the Prometheus operator to scrape our pods.
pub fn pod_monitor(namespace: &str, values: &Values) -> Option<Object> {
    let wanted = &values.pod_monitor;
    let labels: Vec<(&str, &str)> = wanted.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    wanted.enabled.then(|| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": metadata(namespace, "linkspan", &labels),
            "spec": {
                "selector": {"matchLabels": {PART_OF.0: PART_OF.1}},
                "podMetricsEndpoints": [{"port": ADMIN_PORT_NAME, "interval": wanted.interval}],
            },
        })
    })
}
