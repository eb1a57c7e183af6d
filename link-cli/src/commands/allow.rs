//! `allow`: prints an account that another cluster may link with.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    manifests::rights,
    output::{self, Format},
};
use anyhow::bail;
use clap::Args;
use k8s_openapi::api::core::v1::ServiceAccount;

/// Flags of `allow`.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// Name of the account; give each linked cluster its own to be able to end its access alone
    #[arg(long, value_name = "NAME", value_parser = crate::cli::dns_label)]
    service_account_name: String,
    /// Do not ask the cluster whether the account exists
    #[arg(long)]
    ignore_cluster: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `allow`.
///
/// # Errors
/// When the account exists already.
pub async fn run(global: &Global, args: AllowArgs) -> anyhow::Result<Outcome> {
    let name = &args.service_account_name;
    if !args.ignore_cluster {
        let cluster = Cluster::connect(global, None).await?;
        if cluster.get(&cluster.ours::<ServiceAccount>(), name, "ServiceAccount").await?.is_some() {
            bail!(
                "Service account with name {name} already exists, use --ignore-cluster for force operation"
            );
        }
    }
    let objects = rights::link_account(&global.linkspan_namespace, name);
    output::print(&output::documents(&objects, args.output, None))?;
    Ok(Outcome::Well)
}
