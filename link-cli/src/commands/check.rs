//! `check`: looks for what is wrong, and says what mends it.

use crate::{
    app::Outcome,
    checks::{
        self, Category, all_well, may_come, pre,
        render::{Form, render},
        system,
    },
    cli::{Global, duration},
    cluster::Cluster,
    observe::{
        installation::{self, told},
        rights,
    },
    output::{self, is_lively},
    progress::Progress,
};
use clap::Args;
use linkspan_core::process::clock::Clock;
use std::time::Duration;
use tokio::time::Instant;

/// How long `check` waits for what is still coming up, unless told otherwise.
const USUAL_WAIT: Duration = Duration::from_secs(300);

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east check --pre
  link-cli --context east check --wait 3m
  link-cli --context east check -o short
  link-cli --context east check -o json")]
pub struct CheckArgs {
    /// Only what must hold before an installation
    #[arg(long)]
    pre: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Repeat whatever fails for so long; unless given, for 5m what is still coming up, and nothing else. One look takes
    /// at most twice --request-timeout, however slow the API server is
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

/// Runs `check`. Warnings are shown and are no failure.
///
/// # Errors
/// When the kubeconfig cannot be used, or stdout not be written.
pub async fn run(global: &Global, args: CheckArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let deadline = Instant::now() + args.wait.unwrap_or(USUAL_WAIT);
    let mut progress = Progress::on_stderr();
    let categories = loop {
        let categories = if args.pre { before(&cluster).await } else { after(&cluster).await };
        let worth_waiting = if args.wait.is_some() { !all_well(&categories) } else { may_come(&categories) };
        if !worth_waiting || Instant::now() >= deadline {
            break categories;
        }
        let failed = categories.iter().flat_map(|c| &c.checks).find(|check| check.failed());
        progress.waiting(failed.map_or("", |check| check.description.as_str()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    progress.end();
    output::print(&render(&categories, args.output, is_lively(&std::io::stdout())))?;
    Ok(if all_well(&categories) { Outcome::Well } else { Outcome::FoundErrors })
}

async fn before(cluster: &Cluster) -> Vec<Category> {
    let version = told(installation::api_version(cluster).await);
    let api = system::api(&version);
    if version.is_err() {
        return vec![api];
    }
    let rights = rights::to_install(cluster).await;
    vec![api, pre::pre(&rights, &told(installation::definitions(cluster).await))]
}

async fn after(cluster: &Cluster) -> Vec<Category> {
    checks::of_installation(&Box::pin(installation::look(cluster, &Clock::system())).await)
}
