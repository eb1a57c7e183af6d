//! Everything that an installation consists of, in the order in which it is applied.

use crate::manifests::{
    admission,
    object::{Key, Object, metadata},
    optional, rights,
    values::Values,
    workloads,
};
use linkspan_core::api::{
    crds,
    credentials::{CA_BUNDLE_CONFIG_MAP, CA_SECRET, GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP},
    labels::{FIELD_MANAGER, REMOTE_ACCESS_ACCOUNT},
};
use serde_json::json;

/// ConfigMap with the values of the installation, so that `upgrade` can keep them.
pub const VALUES_CONFIG_MAP: &str = "linkspan-values";
/// Key of [`VALUES_CONFIG_MAP`]: the values as JSON.
pub const VALUES_KEY: &str = "values.json";

/// The definitions of our resources.
pub fn definitions() -> Vec<Object> {
    crds::definitions().iter().map(|crd| json!(crd)).collect()
}

/// SMI's definitions of splits and route groups. One that a cluster has from somebody else is left as it is.
pub fn smi_definitions() -> Vec<Object> {
    crds::smi_definitions().iter().map(|crd| json!(crd)).collect()
}

/// The namespace. Its pods run under the strictest of Kubernetes' Pod Security Standards.
pub fn namespace(name: &str) -> Object {
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata("", name, &restricted)})
}

/// Everything but definitions and namespace: what the chart `linkspan` holds.
pub fn parts(namespace: &str, values: &Values) -> Vec<Object> {
    let mut all = rights::gateway(namespace, values);
    all.extend(rights::controller(namespace, values));
    all.push(rights::remote_access_role());
    all.extend(rights::link_account(namespace, REMOTE_ACCESS_ACCOUNT));
    all.extend(admission::policy(namespace));
    all.push(workloads::gateway_service(namespace, values));
    all.push(workloads::controller(namespace, values));
    all.push(workloads::gateway(namespace, values));
    all.extend(workloads::disruption_budgets(namespace, values));
    all.extend(optional::network_policies(namespace, values));
    all.extend(optional::pod_monitor(namespace, values));
    all.push(kept_values(namespace, values));
    all
}

fn kept_values(namespace: &str, values: &Values) -> Object {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(namespace, VALUES_CONFIG_MAP, &[]),
        "data": {VALUES_KEY: json!(values).to_string()},
    })
}

/// The parts that some values bring and others do not.
pub fn only_with_some_values(namespace: &str) -> Vec<Key> {
    let keys = |values: &Values| parts(namespace, values).iter().map(Key::of).collect::<Vec<_>>();
    let mut all = Values { ha: true, ..Values::default() };
    all.network_policies.enabled = true;
    all.pod_monitor.enabled = true;
    let least = keys(&Values::default());
    keys(&all).into_iter().filter(|key| !least.contains(key)).collect()
}

/// The objects of an installation that are not in its namespace, and the namespace: what `uninstall` removes. The
/// parts that write come first, so that nothing is written again.
pub fn to_remove(name: &str) -> Vec<Key> {
    let mut all: Vec<Key> = [workloads::controller, workloads::gateway]
        .map(|part| Key::of(&part(name, &Values::default())))
        .into();
    let of_cluster = parts(name, &Values::default()).into_iter().map(|object| Key::of(&object));
    all.extend(of_cluster.filter(|key| key.namespace.is_empty()));
    all.push(Key::of(&namespace(name)));
    all.extend(definitions().iter().chain(&smi_definitions()).map(Key::of));
    all
}

/// What the controller keeps in the namespace besides: its CA, key material, bundles, cursor and Lease.
pub fn kept_by_controller(namespace: &str) -> Vec<Key> {
    let secrets = [CA_SECRET, GATEWAY_TLS_SECRET].map(|name| Key::new("v1", "Secret", namespace, name));
    let maps = [CA_BUNDLE_CONFIG_MAP, GATEWAY_TRUST_CONFIG_MAP, rights::PORTS_CONFIG_MAP];
    let maps = maps.map(|name| Key::new("v1", "ConfigMap", namespace, name));
    let lease = Key::new("coordination.k8s.io/v1", "Lease", namespace, FIELD_MANAGER);
    secrets.into_iter().chain(maps).chain([lease]).collect()
}
