//! Checks of the cluster's API and of the installation in it.

use crate::{
    checks::{Category, Check, clocks, listed, rights, unknown},
    cli::VERSION,
    commands::install::is_ours,
    observe::{
        exports::Exports,
        health::Source,
        installation::{Answer, Installation, Workload, wanted_roles},
    },
};
use k8s_openapi::api::core::v1::Service;
use linkspan_core::api::labels::{CONTROLLER, GATEWAY};
use serde_json::Value;
use std::collections::BTreeMap;

/// The oldest Kubernetes whose API has all that is installed: admission policies became stable there.
const OLDEST_KUBERNETES: (u32, u32) = (1, 30);

/// Whether the API answers and is new enough.
pub fn api(version: &Answer<String>) -> Category {
    let mut checks = vec![];
    match version {
        Err(e) => {
            checks.push(Check::wrong(
                "can query the Kubernetes API",
                e,
                "check --context and the kubeconfig",
            ));
        }
        Ok(version) => {
            checks.push(Check::well("can query the Kubernetes API", vec![]));
            checks.push(new_enough(version));
        }
    }
    Category { name: "kubernetes-api", checks }
}

fn new_enough(version: &str) -> Check {
    let (major, minor) = OLDEST_KUBERNETES;
    let description = format!("is running Kubernetes {major}.{minor} or newer");
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(|n| n.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(a), Some(b)) if (a, b) >= OLDEST_KUBERNETES => Check::well(description, vec![]),
        (Some(_), Some(_)) => Check::wrong(description, format!("it is {version}"), "upgrade the cluster"),
        _ => Check::warning(description, format!("version {version:?} cannot be read"), "check it by hand"),
    }
}

/// Whether the installation stands and runs.
pub fn system(seen: &Installation) -> Category {
    let apply = format!("link-cli --context {0} install | kubectl --context {0} apply -f -", seen.context);
    let mut checks = vec![definitions(&seen.definitions, &apply)];
    checks.push(match &seen.namespace_exists {
        Err(e) => unknown("namespace exists", e),
        Ok(true) => Check::well("namespace exists", vec![seen.namespace.clone()]),
        Ok(false) => Check::wrong(
            "namespace exists",
            format!("there is no namespace {}", seen.namespace),
            format!("install by running `{apply}`, or name another namespace with -L"),
        ),
    });
    if seen.namespace_exists == Ok(true) {
        checks.extend(running(&seen.workloads, &seen.namespace, &apply));
        let links = seen.links.as_deref().unwrap_or_default();
        checks.push(rights::granted(
            &seen.roles,
            &wanted_roles(&seen.namespace, links, &seen.values),
            &apply,
        ));
        checks.extend(leader(seen));
        checks.extend(own_gateway(&seen.gateway_service, &seen.namespace));
        checks.push(clocks::authority(&seen.bundle, seen.now));
        checks.extend(clocks::of_system(seen));
        checks.push(exports(&seen.exports));
        checks.extend(versions(&seen.workloads));
    }
    Category { name: "linkspan-system", checks }
}

fn definitions(found: &Answer<BTreeMap<String, Option<Value>>>, apply: &str) -> Check {
    let description = "Link CRD exists";
    let found = match found {
        Err(e) => return unknown(description, e),
        Ok(found) => found,
    };
    let missing: Vec<String> = found
        .iter()
        .filter(|(_, there)| there.is_none())
        .map(|(name, _)| format!("* {name} is missing"))
        .collect();
    if !missing.is_empty() {
        return Check::wrong(description, missing.join("\n"), format!("install by running `{apply}`"));
    }
    let foreign: Vec<String> = found
        .iter()
        .filter(|(_, labels)| labels.as_ref().is_some_and(|labels| !is_ours(labels)))
        .map(|(name, _)| format!("* {name} belongs to another product"))
        .collect();
    if foreign.is_empty() {
        return Check::well(description, vec![]);
    }
    Check::warning(
        description,
        foreign.join("\n"),
        "remove the other product: two controllers on one Link disturb each other",
    )
}

fn running(
    workloads: &Answer<BTreeMap<&'static str, Option<Workload>>>,
    namespace: &str,
    apply: &str,
) -> Vec<Check> {
    let workloads = match workloads {
        Err(e) => return vec![unknown("gateway and controller are running", e)],
        Ok(workloads) => workloads,
    };
    let check = |(name, workload): (&&'static str, &Option<Workload>)| {
        let description = format!("{name} is running and ready");
        match workload {
            None => Check::wrong(
                description,
                format!("Deployment {name} is missing"),
                format!("install by running `{apply}`"),
            ),
            Some(w) if w.wanted == 0 => Check::wrong(
                description,
                format!("Deployment {name} is scaled to 0"),
                format!("run `kubectl -n {namespace} scale deployment/{name} --replicas=1`"),
            ),
            Some(w) if w.ready < w.wanted => Check::pending(
                description,
                format!("{} of {} pods are ready", w.ready, w.wanted),
                format!(
                    "see `kubectl -n {namespace} describe deployment/{name}` and `kubectl -n {namespace} logs deployment/{name}`"
                ),
            ),
            Some(w) => Check::well(description, vec![format!("{}/{}", w.ready, w.wanted)]),
        }
    };
    workloads.iter().map(check).collect()
}

/// Somebody must write: without a leader everything stays as it is. Who may not ask pods is told by what is not renewed.
fn leader(seen: &Installation) -> Option<Check> {
    let description = "a mirror controller leads";
    match &seen.health.source {
        Source::Leader { pod, .. } => Some(Check::well(description, vec![pod.clone()])),
        Source::NobodyLeads => Some(Check::pending(
            description,
            "no pod of the controller says that it leads: mirrors and credentials stay as they are",
            format!(
                "see `kubectl -n {0} logs deployment/{CONTROLLER}` and `kubectl -n {0} get lease {CONTROLLER}`",
                seen.namespace
            ),
        )),
        Source::Status => None,
    }
}

/// Linked clusters need an address of the gateway.
fn own_gateway(service: &Answer<Option<Service>>, namespace: &str) -> Option<Check> {
    let description = "the gateway has an address for linked clusters";
    let service = match service {
        Err(e) => return Some(unknown(description, e)),
        Ok(None) => return None,
        Ok(Some(service)) => service,
    };
    let spec = service.spec.clone().unwrap_or_default();
    let balancer = service.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
    let addresses = balancer.ingress.unwrap_or_default().into_iter().filter_map(|i| i.ip.or(i.hostname));
    let addresses: Vec<String> = addresses.chain(spec.external_ips.unwrap_or_default()).collect();
    if !addresses.is_empty() {
        return Some(Check::well(description, addresses));
    }
    Some(match spec.type_.as_deref() {
        Some("LoadBalancer") => Check::warning(
            description,
            format!("Service {GATEWAY} has no load balancer's address"),
            format!(
                "see the events of `kubectl -n {namespace} describe service {GATEWAY}`; where no load balancer is to be had, install with --gateway-service-type NodePort"
            ),
        ),
        // Of these types addresses are given by hand, at each link.
        kind => {
            Check::well(description, vec![format!("by hand: its type is {}", kind.unwrap_or("ClusterIP"))])
        }
    })
}

/// What carries the label is to be seen by linked clusters, and nothing else.
fn exports(exports: &Answer<Exports>) -> Check {
    let description = "exported Services are published";
    let exports = match exports {
        Err(e) => return unknown(description, e),
        Ok(exports) => exports,
    };
    let missing =
        exports.labelled.difference(&exports.published).map(|name| format!("{name} is not published yet"));
    let stale = exports.published.difference(&exports.labelled);
    let stale = stale.map(|name| format!("{name} is published and no longer exported"));
    let wrong = listed(missing.chain(stale));
    if wrong.is_empty() {
        return Check::well(description, vec![format!("{} Services", exports.published.len())]);
    }
    Check::pending(description, wrong.join("\n"), "see the log of the mirror controller")
}

fn versions(workloads: &Answer<BTreeMap<&'static str, Option<Workload>>>) -> Option<Check> {
    let description = "installed and CLI versions match";
    let installed = workloads.as_ref().ok()?;
    let other: Vec<String> = installed
        .iter()
        .filter_map(|(name, workload)| Some((name, workload.as_ref()?)))
        .filter(|(_, workload)| workload.version != VERSION)
        .map(|(name, workload)| {
            format!("* {name}: CLI version is {VERSION} but {} is installed", workload.version)
        })
        .collect();
    if other.is_empty() {
        return Some(Check::well(description, vec![]));
    }
    Some(Check::warning(
        description,
        other.join("\n"),
        "use link-cli of the installed version, or upgrade the installation",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Verdict, testing::seen};
    use serde_json::{from_value, json};

    #[test]
    fn what_is_labelled_and_what_is_published_must_be_the_same() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let check = exports(&Ok(Exports { labelled: set(&["a.b", "a.c"]), published: set(&["a.b", "a.d"]) }));
        let Verdict::Pending(problem) = check.verdict else { panic!("{check:?}") };
        assert_eq!(problem.found, "* a.c is not published yet\n* a.d is published and no longer exported");
    }

    #[test]
    fn without_a_leader_nobody_writes() {
        let mut all = seen(vec![], vec![], vec![]);
        assert!(!leader(&all).unwrap().failed());
        all.health.source = Source::NobodyLeads;
        assert!(leader(&all).unwrap().failed());
        all.health.source = Source::Status;
        assert_eq!(leader(&all), None);
    }

    #[test]
    fn a_load_balancer_without_address_is_told() {
        let check = |service: Value| {
            own_gateway(&Ok(Some(from_value(service).unwrap())), "linkspan").unwrap().verdict
        };
        let bare = json!({"metadata": {}, "spec": {"type": "LoadBalancer"}});
        assert!(matches!(check(bare), Verdict::Warning(_)));
        let ready = json!({"metadata": {}, "spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
        assert_eq!(check(ready), Verdict::Well(vec!["10.0.0.1".into()]));
        assert!(matches!(check(json!({"metadata": {}, "spec": {"type": "NodePort"}})), Verdict::Well(_)));
    }
}
