//! Puts the parts together: binds first, then starts; stops in order.

use crate::{
    admin,
    drain::{self, Drain},
    egress::{self, listeners::Listeners},
    http::{self, pool::Upstreams},
    ingress::{self, accept::accept, connect::Backends, gate::Gate, limits::Limits},
    probe::board::Board,
    record::Metrics,
    source::Tables,
    split::{
        connect::Connector,
        metrics::SplitMetrics,
        owned::Owned,
        port::{Ports, Sources},
        serve::Splits,
    },
    tunnel::links::{self, Pools},
};
use anyhow::anyhow;
use linkspan_core::process::{
    admin::{Admin, bind, serve},
    clock::Clock,
    logging::LogLevel,
    readiness::Readiness,
    resolver::Names,
    shutdown::{self, Shutdown},
};
use prometheus_client::registry::Registry;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

/// What the parts are told by flags.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of this installation.
    pub namespace: String,
    /// Name of this pod; empty outside of Kubernetes.
    pub pod_name: String,
    /// Where tunnels arrive.
    pub listen: SocketAddr,
    /// Where mirrors' ports are bound.
    pub egress_addr: IpAddr,
    /// Where the admin page is.
    pub admin_addr: SocketAddr,
    /// What callers may use.
    pub limits: Limits,
    /// How the gateway stops.
    pub drain: Drain,
    /// What is logged, where the process may change it.
    pub log_level: Option<LogLevel>,
}

/// A gateway whose sockets are bound and whose parts are not yet running.
pub struct App {
    settings: Settings,
    tables: Tables,
    readiness: Readiness,
    clock: Clock,
    tunnel: TcpListener,
    admin: TcpListener,
    /// What other parts are told.
    pub board: Board,
}

impl App {
    /// Binds the sockets.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(
        settings: Settings,
        tables: Tables,
        readiness: Readiness,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let tunnel = bind(settings.listen).await.map_err(|e| anyhow!(e))?;
        let admin = bind(settings.admin_addr).await.map_err(|e| anyhow!(e))?;
        Ok(Self { settings, tables, readiness, clock, tunnel, admin, board: Board::default() })
    }

    /// Where tunnels arrive.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn tunnel_address(&self) -> std::io::Result<SocketAddr> {
        self.tunnel.local_addr()
    }

    /// Where the admin page is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Runs until `shutdown` and everything after it is over.
    ///
    /// # Errors
    /// When a part ends before its time.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let metrics = Metrics::new();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let split_metrics = SplitMetrics::default();
        split_metrics.register(&mut registry);
        let sources = Sources {
            namespace: self.settings.namespace.clone(),
            services: self.tables.services.clone(),
            ports: self.tables.ports.clone(),
            board: self.board.clone(),
        };
        let split_ports = Ports::new(sources, split_metrics.clone());
        let (closing, is_closing) = shutdown::manual();
        let (stop, is_stopped) = shutdown::manual();
        let (admin_stop, admin_is_stopped) = shutdown::manual();
        let mut tasks = JoinSet::new();
        let page = Admin {
            readiness: self.readiness.clone(),
            metrics: Arc::new(registry),
            routes: admin::routes(
                self.board.clone(),
                self.settings.clone(),
                self.tables.clone(),
                split_ports.clone(),
            ),
        };
        tasks.spawn(serve(self.admin, page, admin_is_stopped));
        let pools = Pools::default();
        let names = Names::system().map_err(|problem| tracing::warn!(problem, "no name lookups")).ok();
        tasks.spawn(links::run(
            self.tables.links.clone(),
            self.tables.credentials.subscribe(),
            links::Context {
                pools: pools.clone(),
                board: self.board.clone(),
                metrics: metrics.clone(),
                names,
                clock: self.clock.clone(),
            },
        ));
        tasks.spawn(ingress::forget::forget(self.tables.clone(), metrics.clone()));
        let owned = Owned::default();
        let backends = Backends::new(metrics.clone());
        let connector = Connector { pools: pools.clone(), backends: backends.clone(), tasks: owned.clone() };
        let upstreams = Upstreams::new(connector.clone(), owned.clone());
        tasks.spawn(upstreams.clone().sweep());
        let splits = Splits {
            ports: split_ports,
            connector,
            http: http::proxy::Shared {
                upstreams,
                metrics: split_metrics,
                draining: shutdown.clone(),
                tasks: owned,
            },
            pods: self.tables.pods.clone(),
            credentials: self.tables.credentials.subscribe(),
            flows: metrics.clone(),
            closing: is_closing.clone(),
            stop: is_stopped.clone(),
        };
        let (doubts, counting) = ingress::doubts::doubts(&self.tables, is_stopped.clone());
        tasks.spawn(counting);
        let called = ingress::serve::Context {
            namespace: self.settings.namespace.clone(),
            pod_name: self.settings.pod_name.clone(),
            services: self.tables.services.clone(),
            doubts,
            accounts: self.tables.accounts.clone(),
            credentials: self.tables.credentials.subscribe(),
            gate: Gate::new(self.settings.limits, metrics.clone()),
            backends,
            metrics: metrics.clone(),
            clock: self.clock.clone(),
            leaving: is_closing.clone(),
            stop: is_stopped.clone(),
        };
        let calling = egress::flow::Context {
            pools,
            pods: self.tables.pods.clone(),
            credentials: self.tables.credentials.subscribe(),
            metrics: metrics.clone(),
            stop: is_stopped,
            splits: Arc::new(splits),
        };
        let listeners = Listeners {
            address: self.settings.egress_addr,
            table: self.tables.ports.clone(),
            board: self.board.clone(),
            flows: calling,
            closing: is_closing,
        };
        let mut serving = JoinSet::new();
        serving.spawn(accept(self.tunnel, called));
        serving.spawn(egress::listeners::listen(listeners));
        let stopping = async {
            shutdown.started().await;
            self.board.draining();
            let Settings { drain, pod_name, .. } = &self.settings;
            drain::drain(*drain, pod_name, &self.tables.ports, &metrics, closing).await;
        };
        tokio::select! {
            () = stopping => {}
            Some(ended) = tasks.join_next() => return Err(early(ended)),
            Some(ended) = serving.join_next() => return Err(early(ended)),
        }
        stop.start();
        // Flows that do not even end by a reset end with the process.
        let _ = timeout(Duration::from_secs(3), async { while serving.join_next().await.is_some() {} }).await;
        admin_stop.start();
        Ok(())
    }
}

fn early(ended: Result<(), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow!("a part of the gateway ended before its time"),
        Err(e) => anyhow!("a part of the gateway failed: {e}"),
    }
}
