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
    let mut script = Vec::new();
    let mut command = called_as.command().bin_name(called_as.executable.clone());
    clap_complete::generate(args.shell, &mut command, &called_as.executable, &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Well)
}
