//! Checks of the cluster's API and of the installation in it.

use crate::{
    checks::{Category, Check},
    cli::VERSION,
    commands::install::is_ours,
    observe::installation::{Answer, Installation, Workload},
};
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
        checks.push(bundle(&seen.bundle_published));
        checks.extend(versions(&seen.workloads));
    }
    Category { name: "linkspan-system", checks }
}

fn unknown(description: &str, error: &str) -> Check {
    Check::wrong(description, error, "ask for the right to read this")
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

fn bundle(published: &Answer<bool>) -> Check {
    let description = "CA bundle is published";
    match published {
        Err(e) => unknown(description, e),
        Ok(true) => Check::well(description, vec![]),
        Ok(false) => Check::pending(
            description,
            "ConfigMap linkspan-ca-bundle is not written yet",
            "see the log of the mirror controller",
        ),
    }
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
