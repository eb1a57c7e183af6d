//! The executable: flags, log, signals, and the end.

use anyhow::anyhow;
use clap::Parser;
use linkspan_core::process::{clock::Clock, logging, shutdown};
use linkspan_mirror_controller::{app::App, config::Config, split::hook};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the controller ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    if let Err(error) = logging::init(&config.log_level, config.log_format) {
        // Nothing logs yet.
        eprintln!("{error}");
        return Err(anyhow!(error));
    }
    let (shutdown, signals) = shutdown::on_signals()?;
    let mut watcher = tokio::task::JoinSet::new();
    watcher.spawn(signals);
    if config.undo_splits {
        return hook::undo(&config, &Clock::system()).await;
    }
    let app = App::start(config, Clock::system(), shutdown.clone()).await?;
    tracing::info!(admin = %app.admin_addr, "the controller runs");
    app.run(shutdown).await
}
