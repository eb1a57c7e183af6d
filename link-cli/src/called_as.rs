//! The name that the tool was called by: its own, any other, or kubectl's for a plugin.

use crate::cli::Cli;
use clap::{Command, CommandFactory};
use std::{ffi::OsStr, path::Path};

/// Its own name, as it stands in examples and advice.
const OWN: &str = "link-cli";

/// The name that the tool was called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalledAs {
    /// Name of the executable.
    pub executable: String,
    /// What a user types for it: `kubectl linkspan` for `kubectl-linkspan`, else the executable's name.
    pub typed: String,
}

impl CalledAs {
    /// The name, from the first of the process' arguments.
    pub fn of(first_argument: Option<&OsStr>) -> Self {
        let file = first_argument.and_then(|path| Path::new(path).file_name()).and_then(OsStr::to_str);
        let executable = file.map_or(OWN, |name| name.strip_suffix(".exe").unwrap_or(name)).to_owned();
        // kubectl's rule: `-` parts commands, `_` stands for a dash within one.
        let typed = match executable.strip_prefix("kubectl-") {
            Some(plugin) => format!("kubectl {}", plugin.replace('-', " ").replace('_', "-")),
            None => executable.clone(),
        };
        Self { executable, typed }
    }

    /// The command line under this name, in usage lines and examples too.
    pub fn command(&self) -> Command {
        let command = Cli::command().bin_name(self.typed.clone());
        if self.typed == OWN { command } else { renamed(command, &self.typed) }
    }
}

fn renamed(mut command: Command, name: &str) -> Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        let text = text.replace(&format!("  {OWN} "), &format!("  {name} "));
        command = command.after_help(text.replace(&format!("| {OWN} "), &format!("| {name} ")));
    }
    command.mut_subcommands(|below| renamed(below, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(first: &str) -> String {
        CalledAs::of(Some(OsStr::new(first))).typed
    }

    #[test]
    fn a_plugin_is_called_as_kubectl_calls_it() {
        assert_eq!(typed("/usr/bin/link-cli"), "link-cli");
        assert_eq!(typed("/usr/bin/kubectl-linkspan"), "kubectl linkspan");
        assert_eq!(typed("kubectl-link_span-x"), "kubectl link-span x");
        assert_eq!(typed("ls2"), "ls2");
        assert_eq!(CalledAs::of(None).typed, "link-cli");
    }

    #[test]
    fn help_names_what_the_user_types() {
        let mut command = CalledAs::of(Some(OsStr::new("kubectl-linkspan"))).command();
        let help = command.render_help().to_string();
        assert!(help.contains("Usage: kubectl linkspan"), "{help}");
        assert!(help.contains("  kubectl linkspan --context east check"), "{help}");
        let error = command.try_get_matches_from(["kubectl-linkspan", "unlink"]).unwrap_err().to_string();
        assert!(error.contains("Usage: kubectl linkspan unlink"), "{error}");
    }
}
