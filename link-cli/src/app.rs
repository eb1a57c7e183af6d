//! From a parsed command line to an exit code.

use crate::{
    cli::{Cli, Command},
    commands, output,
};
use std::process::ExitCode;

/// How a command ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Well,
    /// The command did its work, and found something wrong.
    FoundErrors,
}

/// Runs the command. Errors go to stderr as one sentence.
pub fn main(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&anyhow::anyhow!("the runtime cannot be started: {e}")),
    };
    match runtime.block_on(until_interrupted(run(cli))) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::FoundErrors) => ExitCode::from(1),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    output::note(&format!("error: {error:#}"));
    ExitCode::from(1)
}

/// Ctrl-C ends a wait with a sentence; nothing is half done, since each step is one request.
async fn until_interrupted(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; run the command again to go on")),
    }
}

async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let global = &cli.global;
    match cli.command {
        Command::Install(args) => commands::install::run(global, args).await,
        Command::Uninstall(args) => commands::uninstall::run(global, args).await,
        Command::Link(args) => commands::link::run(global, *args).await,
        Command::Unlink(args) => commands::unlink::run(global, args).await,
        Command::Allow(args) => commands::allow::run(global, args).await,
        Command::Gateways(args) => commands::gateways::run(global, args).await,
        Command::Services(args) => commands::services::run(global, args).await,
        Command::Check(args) => commands::check::run(global, args).await,
        Command::Version(args) => commands::version::run(global, args).await,
        Command::Completion(args) => commands::completion::run(&args),
    }
}
