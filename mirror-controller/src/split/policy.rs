//! Whether network policies let the gateways reach the apex's pods. Pure.
//!
//! Where one does not, taking the apex over would cut its clients off, so it is not done.

use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use linkspan_core::api::selector;
use std::{collections::BTreeMap, net::IpAddr};

type Labels = BTreeMap<String, String>;

/// Who wants to get in.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// Its namespace.
    pub namespace: String,
    /// Labels of the namespace.
    pub namespace_labels: Labels,
    /// Labels of its pods, each with its addresses.
    pub pods: Vec<(Labels, Vec<IpAddr>)>,
}

/// The policies that together keep `visitor` from one of `pods` at one of `ports`: their names, or `None`. All
/// `policies` are of the namespace of `pods`.
pub fn barrier(
    policies: &[&NetworkPolicy],
    pods: &[Labels],
    ports: &[IntOrString],
    visitor: &Visitor,
) -> Option<String> {
    pods.iter().find_map(|pod| {
        let selecting: Vec<&&NetworkPolicy> = policies.iter().filter(|p| isolates(p, pod)).collect();
        let open = |port: &IntOrString| {
            visitor.pods.iter().all(|(labels, ips)| {
                selecting.iter().any(|policy| {
                    let rules = policy.spec.iter().flat_map(|s| s.ingress.iter().flatten());
                    rules.into_iter().any(|rule| admits(rule, policy, port, visitor, labels, ips))
                })
            })
        };
        let closed = !selecting.is_empty() && !ports.iter().all(open);
        closed.then(|| {
            let names = selecting.iter().filter_map(|p| p.metadata.name.as_deref());
            names.collect::<Vec<&str>>().join(", ")
        })
    })
}

fn isolates(policy: &NetworkPolicy, pod: &Labels) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let ingress = types.is_empty() || types.iter().any(|t| t == "Ingress");
    ingress && selects(spec.pod_selector.as_ref(), pod)
}

/// As in Kubernetes: an empty selector selects all.
fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let empty = |s: &LabelSelector| {
        s.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && s.match_expressions.as_ref().is_none_or(Vec::is_empty)
    };
    selector.is_none_or(|s| empty(s) || selector::matches(Some(s), labels))
}

fn admits(
    rule: &NetworkPolicyIngressRule,
    policy: &NetworkPolicy,
    port: &IntOrString,
    visitor: &Visitor,
    labels: &Labels,
    ips: &[IpAddr],
) -> bool {
    let ports = rule.ports.as_deref().unwrap_or_default();
    let port_fits = ports.is_empty()
        || ports.iter().any(|allowed| match (&allowed.port, port) {
            (None, _) => true,
            (Some(IntOrString::Int(from)), IntOrString::Int(port)) => {
                (*from..=allowed.end_port.unwrap_or(*from)).contains(port)
            }
            (Some(IntOrString::String(a)), IntOrString::String(b)) => a == b,
            // One names it, the other numbers it: only the pods know, and a wrong guess would cut clients off.
            _ => false,
        });
    let from = rule.from.as_deref().unwrap_or_default();
    let same = policy.metadata.namespace.as_deref() == Some(visitor.namespace.as_str());
    let peer_fits = |peer: &NetworkPolicyPeer| match (&peer.ip_block, &peer.namespace_selector) {
        (Some(block), _) => ips.iter().all(|ip| contains(block, *ip)),
        (None, Some(namespaces)) => {
            selects(Some(namespaces), &visitor.namespace_labels)
                && selects(peer.pod_selector.as_ref(), labels)
        }
        (None, None) => same && selects(peer.pod_selector.as_ref(), labels),
    };
    port_fits && (from.is_empty() || from.iter().any(peer_fits))
}

fn contains(block: &IPBlock, ip: IpAddr) -> bool {
    within(&block.cidr, ip) && !block.except.iter().flatten().any(|except| within(except, ip))
}

fn within(cidr: &str, ip: IpAddr) -> bool {
    let Some((net, length)) = cidr.split_once('/') else { return false };
    let (Ok(net), Ok(length)) = (net.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let prefix = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((net, bits), (ip, ip_bits)) = (prefix(net), prefix(ip));
    let shift = bits - length.min(bits);
    bits == ip_bits && (shift == 128 || net >> shift == ip >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn visitor() -> Visitor {
        let labels = |k: &str, v: &str| Labels::from([(k.to_owned(), v.to_owned())]);
        Visitor {
            namespace: "linkspan".to_owned(),
            namespace_labels: labels("kubernetes.io/metadata.name", "linkspan"),
            pods: vec![(labels("app", "gw"), vec!["10.0.1.7".parse().unwrap()])],
        }
    }

    fn barred(spec: &Value) -> bool {
        let policy: NetworkPolicy =
            from_value(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})).unwrap();
        let pod = Labels::from([("app".to_owned(), "api".to_owned())]);
        barrier(&[&policy], &[pod], &[IntOrString::Int(8080)], &visitor()).is_some()
    }

    #[test]
    fn only_what_keeps_the_gateway_out_bars() {
        let api = json!({"matchLabels": {"app": "api"}});
        for (spec, expected) in [
            (json!({"podSelector": {}}), true),
            (json!({"podSelector": api, "ingress": []}), true),
            (json!({"podSelector": {"matchLabels": {"app": "db"}}}), false),
            (json!({"podSelector": {}, "policyTypes": ["Egress"]}), false),
            (json!({"podSelector": {}, "ingress": [{}]}), false),
            (json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}), true),
            (json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}), false),
            (
                json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "linkspan"}}, "podSelector": {"matchLabels": {"app": "gw"}}}]}]}),
                false,
            ),
            (
                json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]}]}),
                true,
            ),
            (
                json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}]}),
                false,
            ),
            (
                json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.0/24"]}}]}]}),
                true,
            ),
            (json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8000, "endPort": 8100}]}]}), false),
            (json!({"podSelector": {}, "ingress": [{"ports": [{"port": 9090}]}]}), true),
        ] {
            assert_eq!(barred(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn policies_add_up() {
        let read = |name: &str, ingress: Value| -> NetworkPolicy {
            from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"podSelector": {}, "ingress": ingress}})).unwrap()
        };
        let (deny, allow) = (read("deny", json!([])), read("allow", json!([{}])));
        let (pods, ports) = ([Labels::new()], [IntOrString::Int(80)]);
        assert_eq!(barrier(&[&deny], &pods, &ports, &visitor()).as_deref(), Some("deny"));
        assert_eq!(barrier(&[&deny, &allow], &pods, &ports, &visitor()), None);
        assert_eq!(barrier(&[], &pods, &ports, &visitor()), None);
    }
}
