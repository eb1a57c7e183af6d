//! Flags.

use clap::Parser;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use linkspan_core::{
    api::{
        labels::{ADMIN_PORT, NAMESPACE},
        selector_text,
    },
    process::{kube_client::ConnectOptions, logging::LogFormat},
};
use std::{net::SocketAddr, path::PathBuf};

/// The controller of Linkspan: publishes what this cluster exports, mirrors what linked clusters export, and vouches
/// for gateways.
#[derive(Clone, Debug, Parser)]
#[command(name = "linkspan-mirror-controller", version)]
pub struct Config {
    /// Namespace of the installation.
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Name of this pod: who holds the Lease.
    #[arg(long, env = "POD_NAME", default_value = "linkspan-mirror-controller")]
    pub pod_name: String,
    /// Address of /live, /ready, /metrics and /links.
    #[arg(long, default_value_t = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, ADMIN_PORT)))]
    pub admin_addr: SocketAddr,
    /// Admin port of the gateway pods.
    #[arg(long, default_value_t = ADMIN_PORT)]
    pub gateway_admin_port: u16,
    /// Folder with this cluster's CA (`tls.crt`, `tls.key`), followed when it changes. Without it the CA is that of Secret
    /// `linkspan-ca`, which is made where there is none.
    #[arg(long, value_name = "FOLDER")]
    pub ca_dir: Option<PathBuf>,
    /// Path of a kubeconfig, to run outside a cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, to run outside a cluster.
    #[arg(long)]
    pub context: Option<String>,
    /// Label selector of the namespaces whose Services may be exported, e.g. `team in (a,b)`; empty: all.
    #[arg(long, default_value = "")]
    pub export_namespaces: String,
    /// Label selector of the missing namespaces that are made for mirrors. It is asked about two labels:
    /// `kubernetes.io/metadata.name` and `mirror.linkerd.io/cluster-name`. Absent: none are made.
    #[arg(long, value_parser = selector_text::parse)]
    pub create_namespaces: Option<LabelSelector>,
    /// Give all Services of TrafficSplits back to Kubernetes, and end: before an installation is removed.
    #[arg(long)]
    pub undo_splits: bool,
    /// Level of what is logged (of libraries info at most), or a filter such as `info,kube_client=debug`.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// `plain` or `json`.
    #[arg(long, default_value_t = LogFormat::Plain)]
    pub log_format: LogFormat,
}

impl Config {
    /// How this cluster's API is reached.
    pub fn connect(&self) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            ..ConnectOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_documented_defaults() {
        let config = Config::try_parse_from(["linkspan-mirror-controller", "--namespace", "other"]).unwrap();
        assert_eq!(config.namespace, "other");
        assert_eq!(config.admin_addr.port(), 9999);
        assert_eq!(config.log_format, LogFormat::Plain);
    }
}
