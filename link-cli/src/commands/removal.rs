//! What `unlink`, `uninstall` and `allow revoke` share: objects are printed for `kubectl delete -f -`, or, with `--yes`,
//! deleted and waited for.

use crate::{
    cli::duration,
    cluster::Cluster,
    manifests::object::{Key, Object},
    output::{self, Format},
    progress::{Look, Progress, wait_for},
};
use clap::Args;
use std::time::Duration;

/// Flags of commands that remove objects.
#[derive(Debug, Args)]
pub struct Removal {
    /// Delete the objects and wait until they are gone, instead of printing them
    #[arg(long, conflicts_with = "output")]
    pub yes: bool,
    /// Longest wait with --yes
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub wait: Duration,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Removal {
    /// Prints the objects in their order, or deletes them, those of kind `first` before all others.
    ///
    /// # Errors
    /// When stdout cannot be written, or something is not deleted in time.
    pub async fn carry_out(&self, cluster: &Cluster, mut keys: Vec<Key>, first: &str) -> anyhow::Result<()> {
        if !self.yes {
            return self.print(&keys);
        }
        keys.sort_by_key(|key| key.kind != first);
        delete_and_wait(cluster, &keys, self.wait).await
    }

    /// Prints the objects reduced to what `kubectl delete -f -` needs.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, keys: &[Key]) -> anyhow::Result<()> {
        let stubs: Vec<Object> = keys.iter().map(Key::stub).collect();
        output::print(&output::documents(&stubs, self.output, None))
    }
}

/// Deletes the objects, a line on stderr each, and waits until they are gone.
///
/// # Errors
/// When one cannot be deleted, or is not gone in time.
pub async fn delete_and_wait(cluster: &Cluster, keys: &[Key], limit: Duration) -> anyhow::Result<()> {
    let mut progress = Progress::on_stderr();
    for key in keys {
        if cluster.delete(key).await? {
            progress.line(&format!("{}: {key} deleted", cluster.context));
        }
    }
    for key in keys {
        wait_for(&mut progress, limit, async || {
            Ok(match cluster.find(key).await? {
                Some(_) => Look::NotYet(format!("{key} in context {} is not gone yet", cluster.context)),
                None => Look::Done(()),
            })
        })
        .await?;
    }
    Ok(())
}
