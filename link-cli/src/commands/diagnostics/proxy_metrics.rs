//! `diagnostics proxy-metrics`: the metrics of our pods, in Prometheus' text form.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    manifests::workloads::{CONTROLLER_COMPONENT, GATEWAY_COMPONENT},
    observe::pods::{self, Asked, OurPod},
    output,
};
use anyhow::bail;
use clap::{Args, ValueEnum};

/// Flags of `diagnostics proxy-metrics`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east diagnostics proxy-metrics
  link-cli --context east diagnostics proxy-metrics --of controller
  link-cli --context east diagnostics proxy-metrics linkspan-gateway-5d8c7f9b6-x2x4z")]
pub(super) struct ProxyMetricsArgs {
    /// Only this pod
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// Only the pods of this part
    #[arg(long, value_name = "PART", conflicts_with = "pod")]
    of: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The gateways.
    Gateway,
    /// The mirror controllers.
    Controller,
}

/// Runs it. A pod that does not answer is told on stderr, and the others are printed.
///
/// # Errors
/// When there is no such pod, the user may not ask pods, or none answers.
pub(super) async fn run(global: &Global, args: &ProxyMetricsArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let pods = chosen(&cluster, args).await?;
    let mut answers = 0;
    for (i, pod) in pods.iter().enumerate() {
        match pods::ask(&cluster, &pod.name, "/metrics").await {
            Asked::Answer(text) => {
                answers += 1;
                output::print(&format!("#\n# POD {} ({} of {})\n#\n{text}", pod.name, i + 1, pods.len()))?;
            }
            Asked::Silent(why) => output::note(&format!("pod {} does not answer: {why}", pod.name)),
            Asked::NotAllowed => bail!(
                "pods cannot be asked in context {}: ask for the right to get pods/proxy in namespace {}",
                cluster.context,
                cluster.namespace
            ),
        }
    }
    if answers == 0 {
        bail!("no pod answered: see `link-cli --context {} check`", cluster.context);
    }
    Ok(Outcome::Well)
}

async fn chosen(cluster: &Cluster, args: &ProxyMetricsArgs) -> anyhow::Result<Vec<OurPod>> {
    let mut all = vec![];
    if args.of != Some(Part::Controller) {
        all.extend(pods::list(cluster, GATEWAY_COMPONENT).await?);
    }
    if args.of != Some(Part::Gateway) {
        all.extend(pods::list(cluster, CONTROLLER_COMPONENT).await?);
    }
    all.retain(|pod| pod.running && args.pod.as_ref().is_none_or(|name| &pod.name == name));
    if all.is_empty() {
        let what = args.pod.as_deref().map_or("no pod of Linkspan runs".to_owned(), |pod| {
            format!("pod {pod} of Linkspan does not run")
        });
        bail!(
            "{what} in namespace {} of context {}: see `kubectl -n {0} get pods`",
            cluster.namespace,
            cluster.context
        );
    }
    Ok(all)
}
