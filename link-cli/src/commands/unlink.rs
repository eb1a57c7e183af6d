//! `unlink`: what a link put into this cluster, for `kubectl delete -f -`; the remote cluster is never asked.

use crate::{
    app::Outcome,
    cli::{Global, dns_label},
    cluster::Cluster,
    commands::removal::Removal,
    manifests::{link, object::Key},
    observe::mirrors,
    output,
};
use clap::Args;

/// Flags of `unlink`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east unlink --cluster-name west | kubectl --context east delete -f -
  link-cli --context east unlink --cluster-name west --yes")]
pub struct UnlinkArgs {
    /// Name of the linked cluster
    #[arg(long, value_name = "NAME", value_parser = dns_label)]
    cluster_name: String,
    #[command(flatten)]
    removal: Removal,
}

/// Runs `unlink`. Where there is nothing to undo, that is said on stderr, and is no failure.
///
/// # Errors
/// When the cluster cannot be asked, or with `--yes` something is not deleted in time.
pub async fn run(global: &Global, args: UnlinkArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let name = &args.cluster_name;
    let keys = existing(&cluster, name).await?;
    if keys.is_empty() {
        output::note(&format!("nothing to unlink: no link {name} in context {}", cluster.context));
    }
    // The Link goes first: while it stands, a controller would make its mirrors again.
    args.removal.carry_out(&cluster, keys, "Link").await?;
    Ok(Outcome::Well)
}

/// What stands of the link: its mirrors, which outlive it where no controller runs, and what `link` brought. The mirrors
/// come first: `kubectl delete` takes it amiss when a controller was quicker.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn existing(cluster: &Cluster, link: &str) -> anyhow::Result<Vec<Key>> {
    let mut found = vec![];
    for mirror in mirrors::all(cluster, Some(link), None).await? {
        found.push(Key::new("v1", "Service", &mirror.namespace, &mirror.name));
    }
    for key in link::keys(&cluster.namespace, link) {
        if cluster.find(&key).await?.is_some() {
            found.push(key);
        }
    }
    Ok(found)
}
