//! The command line: what can be asked for, with kubectl's global flags.

use crate::commands::{
    allow::AllowArgs,
    check::CheckArgs,
    completion::CompletionArgs,
    diagnostics::DiagnosticsArgs,
    export::{ExportArgs, UnexportArgs},
    gateways::GatewaysArgs,
    install::InstallArgs,
    link::LinkArgs,
    services::ServicesArgs,
    stat::StatArgs,
    uninstall::UninstallArgs,
    unlink::UnlinkArgs,
    upgrade::UpgradeArgs,
    version::VersionArgs,
};
use clap::{Args, Parser, Subcommand};
use linkspan_core::{
    api::{duration::parse_duration, labels::NAMESPACE},
    process::kube_client::ConnectOptions,
};
use std::{path::PathBuf, time::Duration};

/// Version of this tool, and of the images it installs unless told otherwise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const EXIT_CODES: &str = "\
Exit codes:
  0    done, and all is well
  1    the operation failed, or a check did; stderr says why
  2    the command line is wrong
  130  interrupted by Ctrl-C

NO_COLOR in the environment turns colours off. As `kubectl-linkspan` on the PATH it is run by `kubectl linkspan`.

Examples:
  link-cli --context east install | kubectl --context east apply -f -
  link-cli --context west link --cluster-name west | kubectl --context east apply -f -
  link-cli --context west link --cluster-name west --to east --wait 1m
  link-cli --context east check
  link-cli --context east gateways";

/// Links Kubernetes clusters: Services exported in one appear in the others.
#[derive(Debug, Parser)]
#[command(name = "link-cli", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command, as kubectl has them.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Context of the kubeconfig to use; the current one unless given
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// Kubeconfig to use; $KUBECONFIG, else ~/.kube/config unless given
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Global options")]
    pub impersonate: Option<String>,
    /// Group to act as, together with --as; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP", help_heading = "Global options")]
    pub impersonate_groups: Vec<String>,
    /// Longest wait for one answer of an API server; 0 for no limit
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Global options")]
    pub request_timeout: Duration,
    /// Namespace of your Services, where a command asks for one
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub namespace: Option<String>,
    /// Namespace of the installation
    #[arg(short = 'L', long, global = true, value_name = "NAME", default_value = NAMESPACE, value_parser = dns_label, help_heading = "Global options")]
    pub linkspan_namespace: String,
}

impl Global {
    /// How to reach the API server that these flags name, or that of another context.
    pub fn connect_options(&self, context: Option<&str>) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: context.map(str::to_owned).or_else(|| self.context.clone()),
            impersonate: self.impersonate.clone(),
            impersonate_groups: self.impersonate_groups.clone(),
            request_timeout: Some(self.request_timeout).filter(|t| !t.is_zero()),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print everything an installation consists of, for `kubectl apply -f -`
    Install(InstallArgs),
    /// Print this version of everything with the values of the installation, for `kubectl apply -f -`
    Upgrade(UpgradeArgs),
    /// Print what `kubectl delete -f -` must remove to undo an installation
    Uninstall(UninstallArgs),
    /// Print the link to this cluster, to be applied in another one; or put it there with --to
    #[command(visible_alias = "link-gen")]
    Link(Box<LinkArgs>),
    /// Print what `kubectl delete -f -` must remove to undo a link
    Unlink(UnlinkArgs),
    /// Print an account that another cluster may link with; list and revoke such accounts
    Allow(AllowArgs),
    /// Export a Service to linked clusters, after a check that it will work
    Export(ExportArgs),
    /// Take a Service back from linked clusters
    Unexport(UnexportArgs),
    /// Show the gateways of linked clusters: alive or not, Services, latency
    Gateways(GatewaysArgs),
    /// Show the Services that links brought
    Services(ServicesArgs),
    /// Show what crossed the gateways for split Services
    Stat(StatArgs),
    /// Look for what is wrong, and say what mends it
    Check(CheckArgs),
    /// Look deeper: metrics, where a name leads, certificates, a bundle for a bug report
    Diagnostics(DiagnosticsArgs),
    /// Print the versions of this tool and of the installation
    Version(VersionArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
}

/// Reads a time span such as `90s`, `5m`, `1m30s` or a number of seconds.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a time such as 30s, 5m or 24h is expected".to_owned())
}

/// Reads the name of a namespace, link or account: a DNS label.
///
/// # Errors
/// When none can have it.
pub fn dns_label(text: &str) -> Result<String, String> {
    if linkspan_core::api::names::is_dns_label(text) {
        return Ok(text.to_owned());
    }
    Err("lower-case letters, digits and '-' are expected, at most 63".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_kubectl_stand_before_and_after_the_command() {
        for line in ["link-cli --context a check -L other", "link-cli check --context a -L other"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.context.as_deref(), Some("a"), "{line}");
            assert_eq!(cli.global.linkspan_namespace, "other", "{line}");
        }
    }

    /// All commands with their path, e.g. `allow list`.
    fn commands(command: &clap::Command, path: &str, all: &mut Vec<(String, clap::Command)>) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name()).trim().to_owned();
            commands(below, &path, all);
            all.push((path, below.clone()));
        }
    }

    #[test]
    fn every_command_has_examples_and_they_can_be_typed() {
        let mut all = vec![];
        commands(&Cli::command(), "", &mut all);
        assert!(all.len() > 15, "{}", all.len());
        for (path, command) in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("{path}: no examples"));
            let parts = examples.lines().flat_map(|line| line.split(" | "));
            let typed: Vec<&str> =
                parts.map(str::trim).filter(|part| part.starts_with("link-cli ")).collect();
            assert!(!typed.is_empty() || path == "completion", "{path}: no example of link-cli");
            assert!(typed.is_empty() || typed.iter().any(|line| line.contains(&path)), "{path}: {typed:?}");
            for line in typed {
                let words = line.split(" > ").next().unwrap_or_default().split_whitespace();
                let read = Cli::try_parse_from(words.map(|word| word.trim_matches('\'')));
                assert!(read.is_ok(), "{path}: {line}: {}", read.unwrap_err());
            }
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for (line, kind) in [
            ("link-cli", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("link-cli instal", ErrorKind::InvalidSubcommand),
            ("link-cli link", ErrorKind::MissingRequiredArgument),
            ("link-cli link --cluster-name a --both", ErrorKind::MissingRequiredArgument),
            ("link-cli link --cluster-name a.b", ErrorKind::ValueValidation),
            ("link-cli allow", ErrorKind::MissingRequiredArgument),
            ("link-cli allow revoke", ErrorKind::MissingRequiredArgument),
            ("link-cli export", ErrorKind::MissingRequiredArgument),
            ("link-cli diagnostics", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("link-cli unlink", ErrorKind::MissingRequiredArgument),
            ("link-cli check --wait soon", ErrorKind::ValueValidation),
            ("link-cli -L Upper check", ErrorKind::ValueValidation),
            ("link-cli install --crds --skip-crds", ErrorKind::ArgumentConflict),
            ("link-cli install -o xml", ErrorKind::InvalidValue),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
