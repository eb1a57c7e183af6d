//! `completion`: prints a script by which a shell completes this tool's commands.

use crate::{app::Outcome, cli::Cli, output};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Flags of `completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `completion`.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &CompletionArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "link-cli", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Well)
}
