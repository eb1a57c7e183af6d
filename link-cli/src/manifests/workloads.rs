//! The running parts: Deployments, the gateway's Service, disruption budgets.

use crate::manifests::{
    object::{Object, metadata},
    values::Values,
};
use linkspan_core::api::labels::{
    ADMIN_PORT, ADMIN_PORT_NAME, COMPONENT, CONTROLLER, GATEWAY, GATEWAY_PORT, GATEWAY_PORT_NAME,
};
use serde_json::{Value, json};

/// Value of label [`COMPONENT`] on the gateway's objects and pods.
pub const GATEWAY_COMPONENT: &str = "gateway";
/// Value of label [`COMPONENT`] on the controller's objects and pods.
pub const CONTROLLER_COMPONENT: &str = "mirror-controller";
/// Time from the first signal to the end of a gateway pod. SIGTERM starts its drain, so there is no `preStop`.
const GATEWAY_GRACE_SECONDS: u32 = 120;
/// Time of these in which the gateway ends by itself; what is left is for the node to be late.
const GATEWAY_DRAIN_SECONDS: u32 = GATEWAY_GRACE_SECONDS - 10;
/// Time in which a new gateway pod is taken into the mirrors' slices, before an old one may leave.
const GATEWAY_MIN_READY_SECONDS: u32 = 5;
const CONTROLLER_GRACE_SECONDS: u32 = 30;
/// The user and group that everything runs as.
const USER: u32 = 65532;

/// What differs between the two Deployments.
struct Workload<'a> {
    name: &'a str,
    component: &'a str,
    replicas: u32,
    grace_seconds: u32,
    min_ready_seconds: u32,
    args: Vec<String>,
    ports: Value,
    resources: &'a Value,
}

/// The gateway's Service, the one open port of a cluster.
pub fn gateway_service(namespace: &str, values: &Values) -> Object {
    let mut metadata = metadata(namespace, GATEWAY, &[(COMPONENT, GATEWAY_COMPONENT)]);
    if !values.gateway.service_annotations.is_empty() {
        metadata["annotations"] = json!(values.gateway.service_annotations);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": values.gateway.service_type,
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {COMPONENT: GATEWAY_COMPONENT},
            "ports": [{
                "name": GATEWAY_PORT_NAME,
                "port": values.gateway.port,
                "targetPort": GATEWAY_PORT_NAME,
                "protocol": "TCP",
            }],
        },
    })
}

/// The gateway's Deployment.
pub fn gateway(namespace: &str, values: &Values) -> Object {
    let ports = json!([
        {"name": GATEWAY_PORT_NAME, "containerPort": GATEWAY_PORT, "protocol": "TCP"},
        {"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"},
    ]);
    let workload = Workload {
        name: GATEWAY,
        component: GATEWAY_COMPONENT,
        replicas: values.gateway_replicas(),
        grace_seconds: GATEWAY_GRACE_SECONDS,
        min_ready_seconds: GATEWAY_MIN_READY_SECONDS,
        args: vec![format!("--drain-timeout={GATEWAY_DRAIN_SECONDS}s")],
        ports,
        resources: &values.gateway.resources,
    };
    deployment(namespace, values, &workload)
}

/// The controller's Deployment.
pub fn controller(namespace: &str, values: &Values) -> Object {
    let workload = Workload {
        name: CONTROLLER,
        component: CONTROLLER_COMPONENT,
        replicas: values.controller_replicas(),
        grace_seconds: CONTROLLER_GRACE_SECONDS,
        min_ready_seconds: 0,
        args: vec![],
        ports: json!([{"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"}]),
        resources: &values.controller.resources,
    };
    deployment(namespace, values, &workload)
}

/// One pod at a time may be taken away by the cluster's own maintenance; only with `ha`.
pub fn disruption_budgets(namespace: &str, values: &Values) -> Vec<Object> {
    if !values.ha {
        return vec![];
    }
    let budget = |name: &str, component: &str| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(namespace, name, &[(COMPONENT, component)]),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {COMPONENT: component}}},
        })
    };
    vec![budget(GATEWAY, GATEWAY_COMPONENT), budget(CONTROLLER, CONTROLLER_COMPONENT)]
}

fn deployment(namespace: &str, values: &Values, workload: &Workload<'_>) -> Object {
    let labels = [(COMPONENT, workload.component)];
    let mut pod = json!({
        "serviceAccountName": workload.name,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": workload.grace_seconds,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(values, workload)],
    });
    if values.ha {
        pod["affinity"] = anti_affinity(workload.component);
        pod["topologySpreadConstraints"] = spread(workload.component);
    }
    let mut pod_metadata = metadata("", "", &labels);
    if let Some(fields) = pod_metadata.as_object_mut() {
        fields.remove("name");
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(namespace, workload.name, &labels),
        "spec": {
            "replicas": workload.replicas,
            "minReadySeconds": workload.min_ready_seconds,
            "selector": {"matchLabels": {COMPONENT: workload.component}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": pod_metadata, "spec": pod},
        },
    })
}

fn container(values: &Values, workload: &Workload<'_>) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": ADMIN_PORT_NAME},
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "name": workload.component,
        "image": values.image(workload.component),
        "imagePullPolicy": values.image_pull_policy,
        "args": args(values, workload),
        "env": [field("POD_NAMESPACE", "metadata.namespace"), field("POD_NAME", "metadata.name")],
        "ports": workload.ports,
        "readinessProbe": probe("/ready", 2, 3),
        "livenessProbe": probe("/live", 10, 3),
        "resources": workload.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

fn args(values: &Values, workload: &Workload<'_>) -> Vec<String> {
    let mut args =
        vec![format!("--log-level={}", values.log_level), format!("--log-format={}", values.log_format)];
    args.extend(workload.args.iter().cloned());
    if !values.export_namespaces.is_empty() {
        args.push(format!("--export-namespaces={}", values.export_namespaces));
    }
    if workload.component == CONTROLLER_COMPONENT && !values.create_namespaces.is_empty() {
        args.push(format!("--create-namespaces={}", values.create_namespaces));
    }
    args
}

/// Pods of one part keep away from each other, by node first, then by zone, as far as there is room.
/// Pods of one version apart from each other. Anti-affinity also counts those of the version before, and those that are
/// leaving: after an upgrade all could be on one node.
fn spread(component: &str) -> Value {
    json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {COMPONENT: component}},
        "matchLabelKeys": ["pod-template-hash"],
    }])
}

fn anti_affinity(component: &str) -> Value {
    let term = |weight: u32, topology: &str| {
        json!({
            "weight": weight,
            "podAffinityTerm": {
                "topologyKey": topology,
                "labelSelector": {"matchLabels": {COMPONENT: component}},
            },
        })
    };
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        term(100, "kubernetes.io/hostname"),
        term(50, "topology.kubernetes.io/zone"),
    ]}})
}
