//! `link`: prints the link to a cluster, for `kubectl apply` in another one, now or later.

use crate::{
    app::Outcome,
    cli::{Global, dns_label, duration},
    cluster::Cluster,
    commands::{link_to, linkerd_flags::LinkerdFlags},
    manifests::{
        link::{self, LinkInput},
        object::Object,
    },
    observe::target::{self, SignIn},
    output::{self, Format},
    progress::Progress,
};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use linkspan_core::api::{labels::REMOTE_ACCESS_ACCOUNT, selector_text};
use std::{io::IsTerminal, time::Duration};

/// The shortest token an API server gives.
const SHORTEST_TOKEN: Duration = Duration::from_secs(600);

/// Flags of `link`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context west link --cluster-name west > west.yaml
  link-cli --context west link --cluster-name west | kubectl --context east apply -f -
  link-cli --context west link --cluster-name west --to east --wait 1m
  link-cli --context west link --cluster-name west --to east --both --peer-name east
  link-cli --context west link --cluster-name west --to east --dry-run
  link-cli --context west link --cluster-name west --gateway-addresses 192.0.2.7
  link-cli --context west link --cluster-name west --long-lived-token > west-for-git.yaml")]
pub struct LinkArgs {
    /// What this cluster is called in the other one: Services appear there as `<service>-<name>`
    #[arg(long, value_name = "NAME", value_parser = link_name)]
    pub cluster_name: String,
    /// Address of this cluster's API server as the other cluster reaches it
    #[arg(long, value_name = "HOST:PORT")]
    api_server_address: Option<String>,
    /// Account that the other cluster signs in with
    #[arg(long, value_name = "NAME", default_value = REMOTE_ACCESS_ACCOUNT, value_parser = dns_label)]
    service_account_name: String,
    /// Addresses of this cluster's gateway, comma separated, where its Service does not have the right ones
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    gateway_addresses: Vec<String>,
    /// Port of this cluster's gateway, where its Service does not have the right one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: Option<u16>,
    /// DNS domain of this cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Which exported Services are wanted, as for kubectl -l [default: mirror.linkerd.io/exported=true]
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector_text::parse)]
    selector: Option<LabelSelector>,
    /// Annotations that are not copied: keys, or `<prefix>/*`, comma separated
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    excluded_annotations: Vec<String>,
    /// Labels that are not copied: keys, or `<prefix>/*`, comma separated
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    excluded_labels: Vec<String>,
    /// How long the output can be applied; the controller renews the token from then on
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = token_lifetime)]
    token_lifetime: Duration,
    /// Use a token that never ends, for files that are kept in Git; it is left in this cluster as a Secret
    #[arg(long, conflicts_with = "token_lifetime")]
    long_lived_token: bool,
    /// Context of the other cluster: put the link there instead of printing it
    #[arg(long, value_name = "CONTEXT")]
    pub to: Option<String>,
    /// Link the other cluster to this one as well
    #[arg(long, requires_all = ["to", "peer_name"])]
    pub both: bool,
    /// What the other cluster is called in this one, with --both
    #[arg(long, value_name = "NAME", requires = "both", value_parser = link_name)]
    pub peer_name: Option<String>,
    /// With --to: ask the API servers what would come of it, and change nothing
    #[arg(long, requires = "to")]
    pub dry_run: bool,
    /// Longest wait for what is still coming up: the gateway's address, with --to the link itself; 0: no wait
    #[arg(long, value_name = "TIME", default_value = "2m", num_args = 0..=1, default_missing_value = "2m", value_parser = duration)]
    pub wait: Duration,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, conflicts_with = "to")]
    output: Format,
    #[command(flatten)]
    _linkerds: LinkerdFlags,
}

impl LinkArgs {
    /// The flags for the way back of `--both`: what was said of this cluster's addresses is not true of the other's.
    pub fn back(&self, peer_name: &str) -> Self {
        Self {
            cluster_name: peer_name.to_owned(),
            api_server_address: None,
            gateway_addresses: vec![],
            gateway_port: None,
            ..self.clone()
        }
    }
}

/// The objects of a link, and until when they can be applied (absent: for ever).
pub struct Described {
    /// For the importing cluster.
    pub objects: Vec<Object>,
    /// When the token ends.
    pub expires: Option<Timestamp>,
    /// Where the gateway is, for messages.
    pub gateway: String,
}

/// Runs `link`.
///
/// # Errors
/// When the cluster cannot be described, or, with `--to`, the other one not be changed.
pub async fn run(global: &Global, args: LinkArgs) -> anyhow::Result<Outcome> {
    if args.to.is_some() {
        return link_to::run(global, &args).await;
    }
    let mut progress = Progress::on_stderr();
    let cluster = Cluster::connect(global, None).await?;
    let described = describe(global, &cluster, &args, &mut progress).await?;
    progress.end();
    let until = until(&args.cluster_name, described.expires);
    let text = output::documents(&described.objects, args.output, Some(&until));
    if std::io::stdout().is_terminal() {
        output::note(&format!(
            "warning: this output holds a secret (a token for context {}): redirect it to a file",
            cluster.context
        ));
    }
    output::print(&text)?;
    output::note(&until);
    Ok(Outcome::Well)
}

/// Asks `cluster` all that a link to it needs.
///
/// # Errors
/// When something is missing and does not come in time.
pub async fn describe(
    global: &Global,
    cluster: &Cluster,
    args: &LinkArgs,
    progress: &mut Progress,
) -> anyhow::Result<Described> {
    let given = (args.gateway_addresses.as_slice(), args.gateway_port);
    let (gateway_addresses, gateway_port) = target::gateway(cluster, given, args.wait, progress).await?;
    let (ca_bundle, trust_domain) = target::trust(cluster, args.wait, progress).await?;
    let sign_in = SignIn {
        account: &args.service_account_name,
        api_server_address: args.api_server_address.as_deref(),
        token_lifetime: args.token_lifetime,
        long_lived: args.long_lived_token,
    };
    let (api, expires) = target::api_access(global, cluster, &sign_in, progress).await?;
    let gateway = format!("{} port {gateway_port}", gateway_addresses.join(", "));
    let objects = link::objects(&LinkInput {
        name: args.cluster_name.clone(),
        namespace: cluster.namespace.clone(),
        domain: args.cluster_domain.clone(),
        api,
        ca_bundle,
        trust_domain,
        gateway_addresses,
        gateway_port,
        selector: args.selector.clone(),
        excluded_annotations: args.excluded_annotations.clone(),
        excluded_labels: args.excluded_labels.clone(),
    });
    Ok(Described { objects, expires, gateway })
}

fn until(name: &str, expires: Option<Timestamp>) -> String {
    match expires {
        Some(time) => format!(
            "Link {name}: apply this until {time:.0}, when its token ends; once applied, the controller renews it."
        ),
        None => format!("Link {name}: this can be applied at any time; its token does not end."),
    }
}

fn link_name(text: &str) -> Result<String, String> {
    link::check_name(text).map(|()| text.to_owned()).map_err(|e| e.to_string())
}

fn token_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < SHORTEST_TOKEN {
        Err("API servers give no token for less than 10m".to_owned())
    } else {
        Ok(lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn link(flags: &str) -> LinkArgs {
        let line = ["link-cli", "link", "--cluster-name", "west"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{e}")).command {
            Command::Link(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bare_wait_has_a_time_and_lists_are_split() {
        assert_eq!(link("--to east --wait").wait, Duration::from_secs(120));
        assert_eq!(link("--wait 5s").wait, Duration::from_secs(5));
        assert_eq!(
            link("--gateway-addresses 10.0.0.1,gw.example").gateway_addresses,
            ["10.0.0.1", "gw.example"]
        );
    }

    #[test]
    fn the_way_back_takes_no_addresses_along() {
        let args = link(
            "--to east --both --peer-name east --gateway-addresses 1.2.3.4 --gateway-port 1 --api-server-address a:1",
        );
        let back = args.back("east");
        assert_eq!(
            (back.cluster_name.as_str(), back.gateway_port, back.api_server_address),
            ("east", None, None)
        );
        assert!(back.gateway_addresses.is_empty());
    }

    #[test]
    fn the_end_of_the_token_is_said_in_whole_seconds() {
        let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert!(
            until("west", Some(time)).contains("until 2026-01-02T03:04:05Z,"),
            "{}",
            until("west", Some(time))
        );
        assert!(until("west", None).contains("does not end"));
    }
}
