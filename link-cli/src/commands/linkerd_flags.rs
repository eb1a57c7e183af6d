//! Flags of Linkerd's `link` and `link-gen` that have no meaning here: each is refused with what to use in its place,
//! instead of being unknown.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

const ONE_CONTROLLER: &str =
    "one mirror controller serves all links: choose this for it at `link-cli install`, e.g. with --set";
const NO_FLAT_NETWORK: &str =
    "pods of linked clusters are only reached through gateways, so that there is nothing to select";

/// Each flag, and what to do instead.
const REFUSED: [(&str, &str); 11] = [
    (
        "gateway-name",
        "the gateway's Service is linkspan-gateway in the installation's namespace; where it has not the right address, use --gateway-addresses",
    ),
    ("gateway-namespace", "use -L, the namespace of the installation, which has the gateway in it"),
    ("gateway", "every link goes through the target's gateway, so that there is no link without one"),
    ("remote-discovery-selector", NO_FLAT_NETWORK),
    ("federated-service-selector", "federated Services are not made; export each cluster's own by its label"),
    ("control-plane-version", ONE_CONTROLLER),
    ("service-mirror-retry-limit", "the mirror controller never gives up, so that there is no limit to set"),
    ("log-level", ONE_CONTROLLER),
    ("log-format", ONE_CONTROLLER),
    ("registry", ONE_CONTROLLER),
    ("ha", ONE_CONTROLLER),
];

/// The flags of `REFUSED`. `--gateway` itself, which is Linkerd's default, is taken.
#[derive(Clone, Debug)]
pub struct LinkerdFlags;

impl Args for LinkerdFlags {
    fn augment_args(command: Command) -> Command {
        REFUSED.iter().fold(command, |command, &(flag, instead)| {
            let judge = move |value: &str| match (flag, value) {
                ("gateway", "true") => Ok(()),
                _ => Err(instead),
            };
            let arg = Arg::new(flag).long(flag).hide(true).num_args(0..=1);
            command.arg(arg.default_missing_value("true").value_parser(judge))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LinkerdFlags {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn told(flags: &str) -> Result<(), String> {
        let line = ["link-cli", "link", "--cluster-name", "west"].into_iter().chain(flags.split_whitespace());
        Cli::try_parse_from(line).map(|_| ()).map_err(|e| e.to_string())
    }

    #[test]
    fn each_is_refused_with_what_to_use_instead() {
        for (flag, instead) in REFUSED {
            let error = told(&format!("--{flag}=false")).unwrap_err();
            assert!(error.contains(&format!("--{flag}")) && error.contains(instead), "{error}");
        }
        assert!(told("--ha").unwrap_err().contains("at `link-cli install`"));
        assert!(told("--retries 3").unwrap_err().contains("unexpected argument"));
    }

    #[test]
    fn linkerds_default_is_taken() {
        assert_eq!(told("--gateway"), Ok(()));
        assert_eq!(told("--gateway=true"), Ok(()));
    }
}
