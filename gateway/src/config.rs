//! Command line of the gateway.

use crate::ingress::limits::Limits;
use clap::Parser;
use linkspan_core::{
    api::labels::{ADMIN_PORT, GATEWAY_PORT, NAMESPACE},
    process::{kube_client::ConnectOptions, logging::LogFormat},
};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Carries connections between linked Kubernetes clusters over mutual TLS.
#[derive(Clone, Debug, Parser)]
#[command(name = "linkspan-gateway", version)]
pub struct Args {
    /// Namespace of this installation.
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Address that other clusters' gateways connect to.
    #[arg(long, default_value_t = SocketAddr::new(ANY, GATEWAY_PORT))]
    pub listen: SocketAddr,
    /// Address on which the mirrors' ports are bound.
    #[arg(long, default_value_t = ANY)]
    pub egress_addr: IpAddr,
    /// Address of the admin page: /live /ready /metrics /links /config.
    #[arg(long, default_value_t = SocketAddr::new(ANY, ADMIN_PORT))]
    pub admin_addr: SocketAddr,
    /// Longest time from the first signal to the end, e.g. 75 or 75s.
    #[arg(long, default_value = "75s", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Label selector of the namespaces whose Services may be called from outside, e.g. `team in (a,b)`; empty: all.
    #[arg(long, default_value = "", value_name = "SELECTOR")]
    pub export_namespaces: String,
    /// What callers may use.
    #[command(flatten)]
    pub limits: Limits,
    /// Work from this file instead of Kubernetes.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    pub config: Option<PathBuf>,
    /// Kubeconfig to use; without it and --context, the pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long)]
    pub context: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,linkspan_gateway=debug.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// plain or json.
    #[arg(long, default_value_t = LogFormat::Plain)]
    pub log_format: LogFormat,
}

impl Args {
    /// How to reach this cluster's API server.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            ..ConnectOptions::default()
        }
    }
}

/// Reads a number of seconds, with or without an `s`.
///
/// # Errors
/// One sentence on what is expected.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| "a number of seconds is expected, e.g. 75s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_sound_and_default_to_what_pods_need() {
        Args::command().debug_assert();
        let args = Args::parse_from(["linkspan-gateway"]);
        assert_eq!(args.listen.to_string(), "[::]:4143");
        assert_eq!(args.admin_addr.to_string(), "[::]:9999");
        assert_eq!(args.drain_timeout, Duration::from_secs(75));
        assert_eq!(args.limits, Limits::default());
        assert_eq!(seconds("20"), Ok(Duration::from_secs(20)));
        assert!(seconds("soon").is_err());
    }
}
