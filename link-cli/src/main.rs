//! The executable: reads the command line, runs the command, turns its outcome into an exit code.

use clap::Parser;
use link_cli::{app, cli::Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(Cli::parse())
}
