//! Which labels and annotations of an exported Service its mirror carries too.
//!
//! Keys that make something act in the importing cluster (DNS, ingress, mesh, service proxies) or that mark who
//! tracks an object (kubectl, Helm, Argo CD, Flux, kustomize) are never copied, whatever a Link says.

use std::collections::BTreeMap;

const NEVER_PREFIXES: &[&str] = &[
    "mirror.linkerd.io",
    "multicluster.linkerd.io",
    "failover.linkerd.io",
    "linkspan.dev",
    "meta.helm.sh",
    "helm.sh",
    "argocd.argoproj.io",
    "kustomize.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
    "config.k8s.io",
    "config.kubernetes.io",
];

const KEPT: &[&str] = &[
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
];

/// Annotation that is copied even where a Link excludes it: without it a mirror's port could be misread as HTTP.
const ALWAYS: &str = "config.linkerd.io/opaque-ports";

/// Whether `key` goes from an exported Service to its mirror. `excluded` holds a Link's exclusions: exact keys, or
/// `<prefix>/*` for every key under that prefix.
pub fn is_copied(key: &str, excluded: &[String]) -> bool {
    if key == ALWAYS {
        return true;
    }
    if KEPT.contains(&key) {
        return !is_excluded(key, excluded);
    }
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let kubernetes = prefix == "kubernetes.io"
        || prefix == "k8s.io"
        || prefix.ends_with(".kubernetes.io")
        || prefix.ends_with(".k8s.io");
    !kubernetes && !NEVER_PREFIXES.contains(&prefix) && !is_excluded(key, excluded)
}

fn is_excluded(key: &str, excluded: &[String]) -> bool {
    excluded.iter().any(|rule| match rule.strip_suffix("/*") {
        Some(prefix) => key.split_once('/').is_some_and(|(p, _)| p == prefix),
        None => rule == key,
    })
}

/// The part of `from` that goes to a mirror.
pub fn copied(from: &BTreeMap<String, String>, excluded: &[String]) -> BTreeMap<String, String> {
    from.iter().filter(|(key, _)| is_copied(key, excluded)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_act_or_track_are_never_copied() {
        for key in [
            "mirror.linkerd.io/exported",
            "service.kubernetes.io/service-proxy-name",
            "external-dns.alpha.kubernetes.io/hostname",
            "kubectl.kubernetes.io/last-applied-configuration",
            "meta.helm.sh/release-name",
            "argocd.argoproj.io/tracking-id",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
        ] {
            assert!(!is_copied(key, &[]), "{key}");
        }
        for key in ["app", "team.example/owner", "app.kubernetes.io/name"] {
            assert!(is_copied(key, &[]), "{key}");
        }
    }

    #[test]
    fn a_prefix_rule_stops_at_the_slash() {
        let rules = vec!["evil/*".to_owned(), "app".to_owned()];
        assert!(!is_copied("evil/x", &rules));
        assert!(is_copied("evilish/x", &rules));
        assert!(!is_copied("app", &rules));
        assert!(is_copied("config.linkerd.io/opaque-ports", &["config.linkerd.io/*".to_owned()]));
    }
}
