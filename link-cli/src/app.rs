//! From arguments to an exit code.

use crate::{
    called_as::CalledAs,
    cli::{Cli, Command},
    commands, output,
};
use clap::FromArgMatches;
use std::{ffi::OsString, process::ExitCode};

/// How a command ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Well,
    /// The command did its work, and found something wrong.
    FoundErrors,
}

/// Exit code of a failed operation, or a failed check.
const FAILED: u8 = 1;
/// Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Reads the command line and runs it. Errors go to stderr as one sentence.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let called_as = CalledAs::of(args.first().map(OsString::as_os_str));
    let matches = called_as.command().get_matches_from(args);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&anyhow::anyhow!("the runtime cannot be started: {e}")),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(cli, &called_as) => Some(outcome),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    match outcome {
        Some(Ok(Outcome::Well)) => ExitCode::SUCCESS,
        Some(Ok(Outcome::FoundErrors)) => ExitCode::from(FAILED),
        Some(Err(error)) => failed(&error),
        // Nothing is half done: each step is one request, and may be repeated.
        None => {
            output::note("error: interrupted; run the command again to go on");
            ExitCode::from(INTERRUPTED)
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    output::note(&format!("error: {error:#}"));
    ExitCode::from(FAILED)
}

async fn run(cli: Cli, called_as: &CalledAs) -> anyhow::Result<Outcome> {
    let global = &cli.global;
    match cli.command {
        Command::Install(args) => commands::install::run(global, args).await,
        Command::Upgrade(args) => commands::upgrade::run(global, args).await,
        Command::Uninstall(args) => commands::uninstall::run(global, args).await,
        Command::Link(args) => commands::link::run(global, *args).await,
        Command::Unlink(args) => commands::unlink::run(global, args).await,
        Command::Allow(args) => commands::allow::run(global, args).await,
        Command::Export(args) => commands::export::run(global, args).await,
        Command::Unexport(args) => commands::export::undo(global, args).await,
        Command::Gateways(args) => commands::gateways::run(global, args).await,
        Command::Services(args) => commands::services::run(global, args).await,
        Command::Stat(args) => commands::stat::run(global, args).await,
        Command::Check(args) => commands::check::run(global, args).await,
        Command::Diagnostics(args) => commands::diagnostics::run(global, args).await,
        Command::Version(args) => commands::version::run(global, args).await,
        Command::Completion(args) => commands::completion::run(&args, called_as),
    }
}
