//! `unlink`: what a link put into this cluster, for `kubectl delete -f -`; the remote cluster is never asked.

use crate::{
    app::Outcome,
    cli::{Global, dns_label, duration},
    cluster::Cluster,
    commands::uninstall::{delete_and_wait, print_stubs},
    manifests::{link, object::Key},
    observe::mirrors,
    output::{self, Format},
};
use clap::Args;
use std::time::Duration;

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
    /// Delete the objects and wait until they are gone, instead of printing them
    #[arg(long, conflicts_with = "output")]
    yes: bool,
    /// Longest wait with --yes
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    wait: Duration,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `unlink`. Where there is nothing to undo, that is said on stderr, and is no failure.
///
/// # Errors
/// When the cluster cannot be asked, or with `--yes` something is not deleted in time.
pub async fn run(global: &Global, args: UnlinkArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let name = &args.cluster_name;
    let mut keys = existing(&cluster, name).await?;
    if keys.is_empty() {
        output::note(&format!("nothing to unlink: no link {name} in context {}", cluster.context));
    }
    if args.yes {
        // The Link goes first: while it stands, a controller would make its mirrors again.
        keys.sort_by_key(|key| key.kind != "Link");
        delete_and_wait(&cluster, &keys, args.wait).await?;
    } else {
        print_stubs(&keys, args.output)?;
    }
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
