//! `linkspan-bench run` measures; the other commands are the processes that it starts.

mod adapter;
mod backend;
mod certs;
mod floor;
mod http;
mod latency;
mod load;
mod pattern;
mod plot;
mod refuse;
mod report;
mod result;
mod rig;
mod run;
mod scenarios;
mod usage;
mod wan;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

/// Compares our gateways with other proxies, on one machine and in one run.
#[derive(Debug, Parser)]
#[command(name = "linkspan-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, print a table, write results and plots.
    Run(run::RunArgs),
    /// Serve what lies behind all chains.
    Backend {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Do what the JSON text says, to an address; print what was done.
    Load {
        /// Where to connect to.
        address: SocketAddr,
        /// The load.
        load: String,
    },
    /// One side of the floor.
    Floor {
        /// Which side.
        side: FloorSide,
        /// Where to listen.
        listen: SocketAddr,
        /// Where to send everything.
        next: SocketAddr,
        /// The folder of certificates.
        certs: PathBuf,
        /// The cipher suite.
        suite: String,
    },
    /// Try to be let in by the called side of a chain as somebody who must not be.
    Refuse {
        /// Where it listens.
        address: SocketAddr,
        /// The folder of certificates.
        certs: PathBuf,
        /// The cipher suite.
        suite: String,
        /// The protocol to name.
        alpn: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FloorSide {
    Egress,
    Ingress,
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    // What measures must not be disturbed by a runtime of its own.
    if let Command::Run(args) = command {
        return run::run(&args);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(command))
}

async fn serve(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Backend { listen } => backend::serve(listen).await,
        Command::Load { address, load } => {
            let load = serde_json::from_str(&load).context("the load is no JSON")?;
            let (done, open) = load::run(address, load).await?;
            println!("{}", serde_json::to_string(&done)?);
            if !open.is_empty() {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        Command::Floor { side, listen, next, certs, suite } => match side {
            FloorSide::Egress => floor::egress(listen, next, &certs, &suite).await,
            FloorSide::Ingress => floor::ingress(listen, next, &certs, &suite).await,
        },
        Command::Refuse { address, certs, suite, alpn } => {
            let found = refuse::attempt(address, &certs, &suite, alpn.as_deref()).await?;
            println!("{}", serde_json::to_string(&found)?);
            Ok(())
        }
    }
}
