//! `version`: of this tool, and of what is installed.

use crate::{
    app::Outcome,
    cli::{Global, VERSION},
    cluster::Cluster,
    observe::installation,
    output,
};
use clap::Args;
use serde_json::json;

/// Flags of `version`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli version --client
  link-cli --context east version -o json")]
pub struct VersionArgs {
    /// Only the version of this tool; no cluster is asked
    #[arg(long)]
    client: bool,
    /// Only the versions, as JSON
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

/// Runs `version`. A cluster that cannot be asked is no failure: its versions are then unknown.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(global: &Global, args: VersionArgs) -> anyhow::Result<Outcome> {
    let mut versions = vec![("link-cli", VERSION.to_owned())];
    if !args.client {
        match installed(global).await {
            Ok(found) => versions.extend(found),
            Err(e) => output::note(&format!("warning: the installed versions are unknown: {e:#}")),
        }
    }
    let text = if args.output.is_some() {
        let all: serde_json::Map<_, _> =
            versions.into_iter().map(|(name, v)| (name.to_owned(), json!(v))).collect();
        output::json(&all)
    } else {
        versions.iter().map(|(name, version)| format!("{name}: {version}\n")).collect()
    };
    output::print(&text)?;
    Ok(Outcome::Well)
}

async fn installed(global: &Global) -> anyhow::Result<Vec<(&'static str, String)>> {
    let cluster = Cluster::connect(global, None).await?;
    let workloads = installation::workloads(&cluster).await?;
    let version =
        |found: Option<installation::Workload>| found.map_or("not installed".to_owned(), |w| w.version);
    Ok(workloads.into_iter().map(|(name, found)| (name, version(found))).collect())
}
