//! `diagnostics gather`: what a bug report needs, in one archive. Secrets are listed by name and never read.

use super::bundle::Bundle;
use crate::{
    app::Outcome,
    checks::{
        self,
        render::{Form, render},
    },
    cli::{Global, VERSION},
    cluster::Cluster,
    manifests::workloads::{CONTROLLER_COMPONENT, GATEWAY_COMPONENT},
    observe::{
        installation,
        pods::{self, Asked},
    },
    output,
    progress::Progress,
};
use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, LogParams};
use linkspan_core::{
    api::{
        crds::PART_OF,
        labels::{EXPORTED, MANAGED_BY, MIRRORED_SERVICE, SLICE_MANAGED_BY},
    },
    process::clock::Clock,
};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

/// Most lines of a log that are taken.
const LOG_LINES: i64 = 20_000;

/// Flags of `diagnostics gather`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east diagnostics gather
  link-cli --context east diagnostics gather --file east.tar.gz
  link-cli --context east diagnostics gather --file - > east.tar.gz")]
pub(super) struct GatherArgs {
    /// File to write, `-` for stdout [default: linkspan-<context>-<time>.tar.gz]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What is listed: group and version, kind, whether in our namespace only, labels.
type Kind = (&'static str, &'static str, bool, String);

fn kinds() -> Vec<Kind> {
    let ours = format!("{}={}", PART_OF.0, PART_OF.1);
    let all = String::new;
    vec![
        ("v1", "Pod", true, all()),
        ("v1", "Service", true, all()),
        ("v1", "ConfigMap", true, all()),
        ("v1", "ServiceAccount", true, all()),
        ("v1", "Event", true, all()),
        ("apps/v1", "Deployment", true, all()),
        ("apps/v1", "ReplicaSet", true, all()),
        ("policy/v1", "PodDisruptionBudget", true, all()),
        ("networking.k8s.io/v1", "NetworkPolicy", true, all()),
        ("discovery.k8s.io/v1", "EndpointSlice", true, all()),
        ("coordination.k8s.io/v1", "Lease", true, all()),
        ("rbac.authorization.k8s.io/v1", "Role", true, all()),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", true, all()),
        ("multicluster.linkerd.io/v1alpha3", "Link", true, all()),
        ("linkspan.dev/v1alpha1", "ExportedService", true, all()),
        ("v1", "Service", false, format!("{MIRRORED_SERVICE}=true")),
        ("v1", "Service", false, format!("{EXPORTED}=true")),
        ("discovery.k8s.io/v1", "EndpointSlice", false, format!("{SLICE_MANAGED_BY}={MANAGED_BY}")),
        ("v1", "Node", false, all()),
        ("v1", "Namespace", false, all()),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", false, ours.clone()),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", false, ours.clone()),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", false, ours.clone()),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", false, ours),
        ("certificates.k8s.io/v1", "CertificateSigningRequest", false, all()),
        ("split.smi-spec.io/v1alpha2", "TrafficSplit", false, all()),
    ]
}

/// Runs it. What cannot be had is named within the bundle, and is no failure.
///
/// # Errors
/// When the file cannot be written.
pub(super) async fn run(global: &Global, args: &GatherArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let clock = Clock::system();
    let now = clock.now();
    // An API server that does not answer is an error, not an empty bundle.
    let server = installation::api_version(&cluster).await?;
    let mut progress = Progress::on_stderr();
    let mut bundle = Bundle::default();
    let mut missing = vec![];
    progress.waiting("checks");
    let seen = Box::pin(installation::look(&cluster, &clock)).await;
    let categories = checks::of_installation(&seen);
    bundle.add("check.txt", &render(&categories, Form::Table, false));
    bundle.add("check.json", &render(&categories, Form::Json, false));
    let versions = json!({"link-cli": VERSION, "kubernetes": server, "namespace": cluster.namespace, "time": format!("{now:.0}")});
    bundle.add("versions.json", &output::json(&versions));
    progress.waiting("objects");
    objects(&cluster, &mut bundle, &mut missing).await;
    secrets(&cluster, &mut bundle, &mut missing).await;
    progress.waiting("pods");
    pods_and_logs(&cluster, &mut bundle, &mut missing).await;
    if !missing.is_empty() {
        bundle.add("missing.txt", &missing.join("\n"));
    }
    progress.end();
    write(&cluster, args, &bundle, now)?;
    Ok(Outcome::Well)
}

async fn objects(cluster: &Cluster, bundle: &mut Bundle, missing: &mut Vec<String>) {
    for (api_version, kind, in_namespace, labels) in kinds() {
        let namespace = if in_namespace { cluster.namespace.as_str() } else { "" };
        let place = match (in_namespace, labels.split_once('=')) {
            (true, _) => "namespace",
            (false, Some((key, _))) if kind == "Service" => key.rsplit('/').next().unwrap_or("all"),
            (false, _) => "all",
        };
        match cluster.list_any(api_version, kind, namespace, &labels).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => bundle.add_objects(&format!("objects/{kind}-{place}.yaml"), found),
            Err(e) => missing.push(format!("{e:#}")),
        }
    }
}

/// Which Secrets there are. Their metadata may repeat what they hold, so only names and labels are taken.
async fn secrets(cluster: &Cluster, bundle: &mut Bundle, missing: &mut Vec<String>) {
    match cluster.ours::<Secret>().list_metadata(&ListParams::default()).await {
        Ok(list) => {
            let named = list.items.into_iter().map(|secret| {
                let metadata = secret.metadata;
                json!({"kind": "Secret", "metadata": {"name": metadata.name, "labels": metadata.labels, "creationTimestamp": metadata.creation_timestamp}})
            });
            bundle.add_objects("objects/Secret-names.yaml", named.collect());
        }
        Err(e) => missing.push(format!("{:#}", cluster.explain("listing Secrets", &e))),
    }
}

async fn pods_and_logs(cluster: &Cluster, bundle: &mut Bundle, missing: &mut Vec<String>) {
    for component in [GATEWAY_COMPONENT, CONTROLLER_COMPONENT] {
        let found = match pods::list(cluster, component).await {
            Ok(found) => found,
            Err(e) => {
                missing.push(format!("{e:#}"));
                continue;
            }
        };
        for pod in found {
            for path in ["/ready", "/links", "/config", "/metrics"] {
                match pods::ask(cluster, &pod.name, path).await {
                    Asked::Answer(text) => bundle.add(&format!("pods/{}{path}.txt", pod.name), &text),
                    Asked::Silent(why) => missing.push(format!("{}{path}: {why}", pod.name)),
                    Asked::NotAllowed => missing.push(format!("{}{path}: not allowed", pod.name)),
                }
            }
            for previous in [false, true] {
                let params = LogParams {
                    tail_lines: Some(LOG_LINES),
                    previous,
                    timestamps: true,
                    ..LogParams::default()
                };
                let name = if previous { "previous.log" } else { "current.log" };
                match cluster.ours::<Pod>().logs(&pod.name, &params).await {
                    Ok(text) => bundle.add(&format!("pods/{}/{name}", pod.name), &text),
                    // Most pods have no previous life.
                    Err(_) if previous => {}
                    Err(e) => missing.push(format!(
                        "{:#}",
                        cluster.explain(&format!("reading the log of {}", pod.name), &e)
                    )),
                }
            }
        }
    }
}

fn write(cluster: &Cluster, args: &GatherArgs, bundle: &Bundle, now: Timestamp) -> anyhow::Result<()> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let context: String = cluster.context.chars().map(plain).collect();
    let folder = format!("linkspan-{context}-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    if args.file.as_deref() == Some(Path::new("-")) {
        let mut bytes = vec![];
        bundle.write(&mut bytes, &folder, now)?;
        return output::print_bytes(&bytes);
    }
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    // A bundle that is cut off would look like a whole one.
    let partial = path.with_extension("partial");
    let written = File::create(&partial)
        .and_then(|file| bundle.write(BufWriter::new(file), &folder, now))
        .and_then(|()| fs::rename(&partial, &path));
    if written.is_err() {
        remove(&partial)?;
    }
    written
        .with_context(|| format!("{} cannot be written; name another place with --file", path.display()))?;
    output::print(&format!(
        "{}: {} files, without secrets; read it before you pass it on\n",
        path.display(),
        bundle.len()
    ))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound && path.exists() => Err(e),
        _ => Ok(()),
    }
}
