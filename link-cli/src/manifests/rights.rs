//! Accounts and what each may do: the whole of Linkspan's rights in a cluster.
//!
//! `list` and `watch` limited to a name work only with a field selector on that name, within a namespace: the parts
//! watch their Secrets and ConfigMaps one by one. `create` cannot be limited to names at all.

use crate::manifests::{
    object::{Key, Object, metadata},
    values::Values,
};
use linkspan_core::api::{
    credentials::{CA_BUNDLE_CONFIG_MAP, CA_SECRET, GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP},
    labels::{CONTROLLER, GATEWAY, LINK_ACCOUNT, SIGNER},
    names,
};
use serde_json::{Value, json};

/// ClusterRole of all accounts that linked clusters sign in with.
pub const REMOTE_ACCESS: &str = "linkspan-remote-access";
/// ConfigMap with the port allocation's cursor and freed ports.
pub const PORTS_CONFIG_MAP: &str = "linkspan-ports";

const READ: [&str; 3] = ["get", "list", "watch"];
const WATCH: [&str; 2] = ["list", "watch"];
const KEEP: [&str; 4] = ["get", "list", "watch", "update"];

/// The gateway's account and rights: it reads, and never writes.
pub fn gateway(namespace: &str, values: &Values) -> Vec<Object> {
    let mut cluster =
        vec![rule("", &["services", "pods"], &WATCH), rule("discovery.k8s.io", &["endpointslices"], &WATCH)];
    if !values.export_namespaces.is_empty() {
        cluster.push(rule("", &["namespaces"], &WATCH));
    }
    let own = [
        rule("multicluster.linkerd.io", &["links"], &WATCH),
        rule("", &["serviceaccounts"], &WATCH),
        named("", &["secrets"], &[GATEWAY_TLS_SECRET], &READ),
        named("", &["configmaps"], &[GATEWAY_TRUST_CONFIG_MAP], &READ),
    ];
    with_roles(namespace, GATEWAY, &cluster, &own)
}

/// The controller's account and rights.
pub fn controller(namespace: &str, values: &Values) -> Vec<Object> {
    let mut cluster = vec![
        rule("", &["services"], &["get", "list", "watch", "create", "update", "patch", "delete"]),
        rule("", &["namespaces"], &READ),
        rule(
            "discovery.k8s.io",
            &["endpointslices"],
            &["get", "list", "watch", "create", "update", "patch", "delete"],
        ),
        rule("split.smi-spec.io", &["trafficsplits"], &WATCH),
        rule("split.smi-spec.io", &["trafficsplits/status"], &["patch"]),
        rule("specs.smi-spec.io", &["httproutegroups"], &WATCH),
        // Whether a policy keeps the gateways from the pods of a split Service.
        rule("networking.k8s.io", &["networkpolicies"], &WATCH),
        rule("", &["pods"], &["list"]),
        rule("events.k8s.io", &["events"], &["create"]),
        rule("certificates.k8s.io", &["certificatesigningrequests"], &WATCH),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests/approval", "certificatesigningrequests/status"],
            &["update"],
        ),
        named("certificates.k8s.io", &["signers"], &[SIGNER], &["approve", "sign"]),
    ];
    if !values.create_namespaces.is_empty() {
        cluster.insert(2, rule("", &["namespaces"], &["create"]));
    }
    let own = [
        rule("", &["serviceaccounts"], &["get"]),
        rule("", &["secrets", "configmaps"], &["create"]),
        named("", &["secrets"], &[CA_SECRET], &READ),
        named("", &["secrets"], &[GATEWAY_TLS_SECRET], &KEEP),
        named("", &["configmaps"], &[CA_BUNDLE_CONFIG_MAP, GATEWAY_TRUST_CONFIG_MAP], &KEEP),
        named("", &["configmaps"], &[PORTS_CONFIG_MAP], &["get", "patch"]),
        rule("linkspan.dev", &["exportedservices"], &["get", "list", "watch", "create", "update", "delete"]),
        rule("multicluster.linkerd.io", &["links"], &WATCH),
        rule("multicluster.linkerd.io", &["links/status"], &["patch"]),
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named("coordination.k8s.io", &["leases"], &[CONTROLLER], &["get", "update"]),
        named("apps", &["deployments"], &[CONTROLLER], &["get"]),
    ];
    with_roles(namespace, CONTROLLER, &cluster, &own)
}

/// What every account for linked clusters may do outside of the namespace; once per cluster.
pub fn remote_access_role() -> Object {
    role(
        "ClusterRole",
        "",
        REMOTE_ACCESS,
        &[rule("certificates.k8s.io", &["certificatesigningrequests"], &["create", "get"])],
    )
}

/// An account that linked clusters sign in with, and its rights.
pub fn link_account(namespace: &str, name: &str) -> Vec<Object> {
    let own = [
        rule("linkspan.dev", &["exportedservices"], &READ),
        named("", &["configmaps"], &[CA_BUNDLE_CONFIG_MAP], &READ),
        named("", &["services"], &[GATEWAY], &READ),
        named("", &["serviceaccounts/token"], &[name], &["create"]),
    ];
    vec![
        account(namespace, name, &[(LINK_ACCOUNT, "true")]),
        role("Role", namespace, name, &own),
        binding("RoleBinding", namespace, name, name, name),
        cluster_binding(name, namespace, REMOTE_ACCESS, name),
    ]
}

/// Name of the Secret with an account's token that never ends, where one was asked for.
pub fn token_secret(account: &str) -> String {
    format!("{account}-token")
}

/// Everything that there is of an account for linked clusters.
pub fn link_account_keys(namespace: &str, name: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = link_account(namespace, name).iter().map(Key::of).collect();
    keys.push(Key::new("v1", "Secret", namespace, &token_secret(name)));
    keys
}

/// What the controller of the importing cluster may read for one link: its credentials and its CA bundle.
pub fn link_reader(namespace: &str, link: &str) -> Vec<Object> {
    let name = link_role(link);
    let (given, live) = (names::credentials_secret(link), names::live_credentials_secret(link));
    let rules = [
        named("", &["secrets"], &[&given], &WATCH),
        named("", &["secrets"], &[&live], &KEEP),
        named("", &["configmaps"], &[&names::link_bundle_config_map(link)], &WATCH),
    ];
    vec![role("Role", namespace, &name, &rules), binding("RoleBinding", namespace, &name, &name, CONTROLLER)]
}

/// Name of the Role and RoleBinding that a link brings.
pub fn link_role(link: &str) -> String {
    format!("linkspan-link-{link}")
}

fn with_roles(namespace: &str, name: &str, cluster: &[Value], own: &[Value]) -> Vec<Object> {
    vec![
        account(namespace, name, &[]),
        role("ClusterRole", "", name, cluster),
        cluster_binding(name, namespace, name, name),
        role("Role", namespace, name, own),
        binding("RoleBinding", namespace, name, name, name),
    ]
}

fn account(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Object {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(namespace, name, labels)})
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    let mut rule = rule(group, resources, verbs);
    rule["resourceNames"] = json!(names);
    rule
}

fn role(kind: &str, namespace: &str, name: &str, rules: &[Value]) -> Object {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(namespace, name, &[]),
        "rules": rules,
    })
}

fn binding(kind: &str, namespace: &str, name: &str, role: &str, account: &str) -> Object {
    bound(kind, namespace, name, ("Role", role), (namespace, account))
}

fn cluster_binding(name: &str, namespace: &str, role: &str, account: &str) -> Object {
    bound("ClusterRoleBinding", "", name, ("ClusterRole", role), (namespace, account))
}

fn bound(kind: &str, namespace: &str, name: &str, role: (&str, &str), account: (&str, &str)) -> Object {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(namespace, name, &[]),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": "ServiceAccount", "namespace": account.0, "name": account.1}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Values {
        let selector = || "team=a".to_owned();
        Values { export_namespaces: selector(), create_namespaces: selector(), ..Values::default() }
    }

    #[test]
    fn no_rule_reaches_further_than_it_says() {
        let every = [
            gateway("ns", &all()),
            controller("ns", &all()),
            link_account("ns", "a"),
            link_reader("ns", "west"),
        ]
        .concat();
        for object in every.iter().chain([&remote_access_role()]) {
            for rule in object["rules"].as_array().into_iter().flatten() {
                let text = rule.to_string();
                assert!(!text.contains("\"*\""), "no wildcards: {text}");
                let secrets = rule["resources"].as_array().unwrap().contains(&json!("secrets"));
                let only_create = rule["verbs"] == json!(["create"]);
                assert!(
                    !secrets || only_create || rule["resourceNames"].is_array(),
                    "Secrets by name: {text}"
                );
                assert!(!secrets || object["kind"] == "Role", "no Secret outside of the namespace: {text}");
            }
        }
    }

    #[test]
    fn the_gateway_and_link_accounts_write_nothing_but_requests() {
        for object in [gateway("ns", &all()), link_account("ns", "a")].concat() {
            for rule in object["rules"].as_array().into_iter().flatten() {
                let writes =
                    rule["verbs"].as_array().unwrap().iter().any(|v| !READ.contains(&v.as_str().unwrap()));
                assert!(!writes || rule["resources"] == json!(["serviceaccounts/token"]), "{rule}");
            }
        }
    }
}
