//! `uninstall`: what an installation put into this cluster, for `kubectl delete -f -`.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    commands::{
        install::is_ours,
        removal::{Removal, delete_and_wait},
        unlink,
    },
    manifests::{object::Key, system, values::Values, workloads::CONTROLLER_COMPONENT},
    observe::{health, mirrors, pods, splits},
    output,
    progress::{Look, Progress, wait_for},
};
use anyhow::bail;
use clap::Args;
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Namespace};
use kube::api::{Api, ListParams};
use linkspan_core::{
    api::labels::{CONTROLLER, SIGNER, SPLIT},
    process::split_undo::{self, Patience},
};
use serde_json::json;
use std::time::Duration;

/// Flags of `uninstall`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east uninstall | kubectl --context east delete -f -
  link-cli --context east uninstall --yes
  link-cli --context east uninstall --yes --force")]
pub struct UninstallArgs {
    /// Remove what Links exist too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    removal: Removal,
}

/// Runs `uninstall`. Where there is nothing to undo, that is said on stderr, and is no failure.
///
/// # Errors
/// When Links or splits exist and `--force` is not given, the cluster cannot be asked, or something is not deleted in
/// time.
pub async fn run(global: &Global, args: UninstallArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let links: Vec<String> =
        health::list(&cluster).await?.into_iter().filter_map(|link| link.metadata.name).collect();
    if !links.is_empty() && !args.force {
        bail!(
            "Please unlink the following clusters before uninstalling Linkspan:\n  * {}\n(`link-cli unlink --cluster-name NAME --yes`, or --force to remove the links as well)",
            links.join("\n  * ")
        );
    }
    let split = splits::taken_over(&cluster).await?;
    let Removal { yes, wait, .. } = args.removal;
    if !split.is_empty() && !yes {
        if !args.force {
            bail!("{}", refused_for_splits(&split));
        }
        for key in &split {
            output::note(&format!(
                "warning: run this first, or {key} is left without endpoints: {}",
                by_hand(&cluster, key)
            ));
        }
    }
    let (of_links, of_system) = existing(&cluster, &links).await?;
    if of_links.is_empty() && of_system.is_empty() && split.is_empty() {
        output::note(&format!("nothing to uninstall in context {}", cluster.context));
    }
    if yes {
        undo_splits(&cluster, &split, wait).await?;
        if split.is_empty() {
            // Links go while the controller still runs, so that it can tidy up after them.
            delete_and_wait(&cluster, &of_links, wait).await?;
        } else {
            // What splits had beside their Services belongs to nobody now.
            let slices = splits::our_slices(&cluster).await?;
            delete_and_wait(&cluster, &[of_links, slices].concat(), wait).await?;
        }
        delete_and_wait(&cluster, &of_system, wait).await?;
    } else {
        args.removal.print(&[of_links, of_system].concat())?;
    }
    Ok(Outcome::Well)
}

fn refused_for_splits(split: &[Key]) -> String {
    let names: Vec<String> = split.iter().map(|key| format!("{}/{}", key.namespace, key.name)).collect();
    format!(
        "Please end the traffic splits of the following Services before uninstalling Linkspan, or they are left without endpoints:\n  * {}\n(delete their TrafficSplits, or use --yes, which gives the Services back to their pods first)",
        names.join("\n  * ")
    )
}

fn by_hand(cluster: &Cluster, key: &Key) -> String {
    format!(
        "kubectl --context {} -n {} patch service {} --type=merge -p '{}'",
        cluster.context,
        key.namespace,
        key.name,
        json!({"spec": {"selector": {SPLIT: null}}})
    )
}

/// Longest wait for Kubernetes to find the pods of a Service again; one without pods has nothing to wait for.
const OWN_ENDPOINTS: Duration = Duration::from_secs(5);

/// Gives split Services back to their own pods. The controller goes first: it would take them over again.
async fn undo_splits(cluster: &Cluster, split: &[Key], limit: Duration) -> anyhow::Result<()> {
    if split.is_empty() {
        return Ok(());
    }
    let mut progress = Progress::on_stderr();
    let controller = Key::new("apps/v1", "Deployment", &cluster.namespace, CONTROLLER);
    delete_and_wait(cluster, &[controller], limit).await?;
    wait_for(&mut progress, limit, async || {
        let left = pods::list(cluster, CONTROLLER_COMPONENT).await?;
        Ok(match left.first() {
            Some(pod) => Look::NotYet(format!("pod {} of the controller is not gone yet", pod.name)),
            None => Look::Done(()),
        })
    })
    .await?;
    for key in split {
        splits::undo(cluster, key).await?;
        progress.line(&format!("{}: {key} has its own selector again", cluster.context));
    }
    for key in split {
        let found = wait_for(&mut progress, limit.min(OWN_ENDPOINTS), async || {
            Ok(match splits::has_own_endpoints(cluster, key).await? {
                true => Look::Done(()),
                false => Look::NotYet(format!("{key} has no endpoints of its own")),
            })
        });
        if let Err(e) = found.await {
            progress.line(&format!("warning: {e:#}"));
        }
    }
    // Nobody is sent to the gateways any more before the slices that name them go, and the shadows.
    split_undo::undo_splits(&cluster.client, Patience::long()).await.map_err(|e| anyhow::anyhow!(e))?;
    Ok(())
}

/// What stands: of links (mirrors too), and of the system.
async fn existing(cluster: &Cluster, links: &[String]) -> anyhow::Result<(Vec<Key>, Vec<Key>)> {
    let mut of_links = vec![];
    for link in links {
        of_links.extend(unlink::existing(cluster, link).await?);
    }
    for mirror in mirrors::all(cluster, None, None).await? {
        let key = Key::new("v1", "Service", &mirror.namespace, &mirror.name);
        if !of_links.contains(&key) {
            of_links.push(key);
        }
    }
    let mut of_system = vec![];
    for key in candidates(cluster).await? {
        let Some(found) = cluster.find(&key).await? else { continue };
        let definition = key.kind == "CustomResourceDefinition";
        if !definition || is_ours(&json!(found.metadata.labels)) {
            of_system.push(key);
        }
    }
    let requests = cluster
        .list(
            &cluster.all::<CertificateSigningRequest>(),
            &ListParams::default(),
            "CertificateSigningRequests",
        )
        .await?;
    let ours = requests.into_iter().filter(|request| request.spec.signer_name == SIGNER);
    let names = ours.filter_map(|request| request.metadata.name);
    of_system
        .extend(names.map(|name| Key::new("certificates.k8s.io/v1", "CertificateSigningRequest", "", &name)));
    Ok((of_links, of_system))
}

/// What an installation may consist of. A namespace that `install` did not make stays, and is emptied of what is ours.
async fn candidates(cluster: &Cluster) -> anyhow::Result<Vec<Key>> {
    let api: Api<Namespace> = cluster.all();
    let namespace = cluster.get(&api, &cluster.namespace, "namespace").await?;
    let ours = namespace.as_ref().is_some_and(|namespace| is_ours(&json!(namespace.metadata.labels)));
    let mut keys = system::to_remove(&cluster.namespace);
    if !ours {
        keys.retain(|key| key.kind != "Namespace");
        let values = Values { ha: true, ..Values::default() };
        let parts = system::parts(&cluster.namespace, &values);
        let within = parts.iter().map(Key::of).filter(|key| !key.namespace.is_empty());
        for key in within.chain(system::kept_by_controller(&cluster.namespace)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}
