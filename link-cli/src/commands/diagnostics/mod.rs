//! `diagnostics`: what stands behind the short answers of the other commands.

mod bundle;
mod endpoints;
mod gather;
mod identity;
mod proxy_metrics;
mod way;

use crate::{app::Outcome, cli::Global};
use clap::{Args, Subcommand};

/// Flags of `diagnostics`.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  link-cli --context east diagnostics endpoints my-api-west
  link-cli --context east diagnostics identity
  link-cli --context east diagnostics proxy-metrics
  link-cli --context east diagnostics gather"
)]
pub struct DiagnosticsArgs {
    #[command(subcommand)]
    command: DiagnosticsCommand,
}

#[derive(Debug, Subcommand)]
enum DiagnosticsCommand {
    /// Print the metrics of gateways and controllers, pod by pod
    ProxyMetrics(proxy_metrics::ProxyMetricsArgs),
    /// Show where the name of a Service leads, hop by hop
    Endpoints(endpoints::EndpointsArgs),
    /// Show the certificates in use: whose, signed by whom, until when
    Identity(identity::IdentityArgs),
    /// Write everything a bug report needs into one file, without secrets
    Gather(gather::GatherArgs),
}

/// Runs `diagnostics`.
///
/// # Errors
/// When the cluster cannot be asked, or the output not be written.
pub async fn run(global: &Global, args: DiagnosticsArgs) -> anyhow::Result<Outcome> {
    match args.command {
        DiagnosticsCommand::ProxyMetrics(args) => proxy_metrics::run(global, &args).await,
        DiagnosticsCommand::Endpoints(args) => endpoints::run(global, &args).await,
        DiagnosticsCommand::Identity(args) => identity::run(global, &args).await,
        DiagnosticsCommand::Gather(args) => Box::pin(gather::run(global, &args)).await,
    }
}
