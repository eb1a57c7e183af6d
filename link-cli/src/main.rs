//! The executable: hands its arguments over and ends with the exit code that comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    link_cli::app::main(std::env::args_os())
}
