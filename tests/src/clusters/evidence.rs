//! Collects what a person needs to understand why a test failed on the clusters.

use super::kubectl;
use crate::artifacts;
use std::time::Duration;

/// Time one look may take: a cluster that does not answer must not hold up the end of the test.
const LOOK: Duration = Duration::from_secs(20);
/// The installation's namespace.
const INSTALLATION: &str = "linkspan";

/// Keeps objects, events and logs of `namespace` and of the installation, from each of `contexts`. No Secrets.
pub(super) fn collect(contexts: &[&str], namespace: &str) {
    for context in contexts {
        for (file, args) in [
            ("nodes.txt", vec!["get", "nodes", "-o", "wide"]),
            ("events.txt", vec!["get", "events", "-A", "--sort-by=.lastTimestamp"]),
            ("services.txt", vec!["get", "services,endpointslices", "-A", "-o", "wide"]),
            ("links.yaml", vec!["get", "links.multicluster.linkerd.io", "-A", "-o", "yaml"]),
            ("exports.yaml", vec!["get", "exportedservices.linkspan.dev", "-A", "-o", "yaml"]),
            ("requests.txt", vec!["get", "certificatesigningrequests"]),
        ] {
            keep(context, file, &args);
        }
        for ns in [namespace, INSTALLATION] {
            let objects = "all,endpointslices,configmaps,serviceaccounts";
            keep(context, &format!("{ns}.yaml"), &["-n", ns, "get", objects, "-o", "yaml"]);
            keep(context, &format!("{ns}.pods.txt"), &["-n", ns, "describe", "pods"]);
            logs(context, ns);
        }
    }
}

fn logs(context: &str, namespace: &str) {
    let names = look(context, &["-n", namespace, "get", "pods", "-o", "name"]);
    for pod in names.lines().filter_map(|line| line.strip_prefix("pod/")) {
        let log = ["-n", namespace, "logs", pod, "--all-containers", "--prefix", "--tail=5000"];
        keep(context, &format!("{namespace}.{pod}.log"), &log);
        let before = look(context, &[&log[..], &["--previous"]].concat());
        if !before.is_empty() {
            artifacts::keep(&format!("{context}.{namespace}.{pod}.previous.log"), &before);
        }
    }
}

fn keep(context: &str, file: &str, args: &[&str]) {
    artifacts::keep(&format!("{context}.{file}"), &look(context, args));
}

/// What the command wrote, or why it could not be run; empty where it had nothing to say.
fn look(context: &str, args: &[&str]) -> String {
    match kubectl(context, args.iter().copied()).run_blocking(LOOK) {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) if args.contains(&"--previous") => output.stdout,
        Ok(output) => format!("{}{}", output.stdout, output.stderr),
        Err(error) => format!("{error:#}\n"),
    }
}
