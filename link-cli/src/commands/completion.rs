//! `completion`: prints a script by which a shell completes this tool's commands.

use crate::{app::Outcome, called_as::CalledAs, output};
use clap::Args;
use clap_complete::Shell;

/// Flags of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(link-cli completion bash)
  link-cli completion zsh > \"${fpath[1]}/_link-cli\"
  link-cli completion fish > ~/.config/fish/completions/link-cli.fish
  link-cli completion powershell | Out-String | Invoke-Expression")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `completion`: for the executable's own name, whatever it is.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &CompletionArgs, called_as: &CalledAs) -> anyhow::Result<Outcome> {
    let name = &called_as.executable;
    output::print(&match args.shell {
        // clap_complete names a bash function and its cases differently where the name holds a dash.
        Shell::Bash => {
            let plain = name.replace('-', "_");
            let renamed = |line: &str| match line.strip_suffix(&plain) {
                Some(rest) if rest.trim_start().starts_with("complete -F ") => format!("{rest}{name}\n"),
                _ => format!("{line}\n"),
            };
            script(args.shell, called_as, &plain).lines().map(renamed).collect()
        }
        shell => script(shell, called_as, name),
    })?;
    Ok(Outcome::Well)
}

fn script(shell: Shell, called_as: &CalledAs, name: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut called_as.command().bin_name(name.to_owned()), name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
