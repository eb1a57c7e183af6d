//! Starts a gateway from its command line.

use anyhow::{Context, anyhow};
use clap::Parser;
use linkspan_core::process::{
    clock::Clock,
    kube_client::{client, config_of_daemon},
    logging::{self, LogLevel},
    readiness::Readiness,
    shutdown::on_signals,
};
use linkspan_gateway::{
    app::{App, Settings},
    config::Args,
    drain::Drain,
    source::{Tables, file, kubernetes},
    system,
};
use std::{process::ExitCode, time::Duration};
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let args = Args::parse();
    let log_level = match logging::init(&args.log_level, args.log_format) {
        Ok(level) => level,
        Err(problem) => {
            eprintln!("linkspan-gateway: {problem}");
            return ExitCode::from(2);
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            ExitCode::FAILURE
        }
        Ok(runtime) => match runtime.block_on(run(args, log_level)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

async fn run(args: Args, log_level: LogLevel) -> anyhow::Result<()> {
    system::check();
    // The Kubernetes client takes the process's default; ours is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (shutdown, signals) = on_signals().context("signals cannot be handled")?;
    let (tables, readiness) = (Tables::empty(), Readiness::default());
    let mut drain = Drain::within(args.drain_timeout);
    let mut tasks = JoinSet::new();
    tasks.spawn(signals);
    match &args.config {
        Some(path) => {
            // No slice sends anybody here, so there is nobody to wait for.
            drain.linger = Duration::ZERO;
            tasks.spawn(file::start(path, tables.clone())?);
        }
        None => {
            let client = client(config_of_daemon(&args.connect_options()).await?)?;
            if !args.export_namespaces.is_empty() {
                kubernetes::start_gate(&client, &args.export_namespaces, &tables, &readiness, &mut tasks);
            }
            kubernetes::start(&client, &args.namespace, &tables, &readiness, &mut tasks);
        }
    }
    let settings = Settings {
        namespace: args.namespace,
        pod_name: args.pod_name,
        listen: args.listen,
        egress_addr: args.egress_addr,
        admin_addr: args.admin_addr,
        limits: args.limits,
        drain,
        log_level: Some(log_level),
    };
    let app = App::bind(settings, tables, readiness, Clock::system()).await?;
    tracing::info!(tunnel = %app.tunnel_address()?, admin = %app.admin_address()?, "listening");
    tokio::select! {
        ended = app.run(shutdown) => ended,
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(()) => anyhow!("a watch ended before its time"),
            Err(e) => anyhow!("a watch failed: {e}"),
        }),
    }
}
