//! Puts the parts together: binds first, then starts; stops in order.

use crate::{
    admin,
    egress::{self, listeners::Listeners},
    ingress::{self, accept::accept, connect::Loads},
    probe::board::Board,
    record::{Direction, Metrics},
    source::Tables,
    tunnel::links::{self, Pools},
};
use anyhow::anyhow;
use linkspan_core::{
    api::names::Target,
    process::{
        admin::{Admin, bind, serve},
        readiness::Readiness,
        resolver::Names,
        shutdown::{self, Shutdown, Trigger},
    },
};
use prometheus_client::registry::Registry;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

/// A caller may have sent one more OPEN before it read that this gateway leaves: time for that to arrive.
const GOODBYE: Duration = Duration::from_millis(500);

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
    /// How the gateway stops.
    pub drain: Drain,
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// New flows are accepted for this long after no slice lists this pod any more.
    pub linger: Duration,
    /// Flows may go on for this long after that.
    pub flows: Duration,
    /// Bound of it all.
    pub total: Duration,
}

impl Drain {
    /// As pods stop, within `total`.
    pub fn within(total: Duration) -> Self {
        Self { linger: Duration::from_secs(10), flows: Duration::from_secs(60), total }
    }
}

/// A gateway whose sockets are bound and whose parts are not yet running.
pub struct App {
    settings: Settings,
    tables: Tables,
    readiness: Readiness,
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
    pub async fn bind(settings: Settings, tables: Tables, readiness: Readiness) -> anyhow::Result<Self> {
        let tunnel = bind(settings.listen).await.map_err(|e| anyhow!(e))?;
        let admin = bind(settings.admin_addr).await.map_err(|e| anyhow!(e))?;
        Ok(Self { settings, tables, readiness, tunnel, admin, board: Board::default() })
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
        let (closing, is_closing) = shutdown::manual();
        let (stop, is_stopped) = shutdown::manual();
        let (admin_stop, admin_is_stopped) = shutdown::manual();
        let mut tasks = JoinSet::new();
        let page = Admin {
            readiness: self.readiness.clone(),
            metrics: Arc::new(registry),
            routes: admin::routes(self.board.clone(), self.settings.clone(), self.tables.clone()),
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
            },
        ));
        tasks.spawn(forget_unexported(self.tables.clone(), metrics.clone()));
        let called = ingress::serve::Context {
            namespace: self.settings.namespace.clone(),
            services: self.tables.services.clone(),
            exports: self.tables.exports.subscribe(),
            accounts: self.tables.accounts.clone(),
            credentials: self.tables.credentials.subscribe(),
            loads: Loads::default(),
            metrics: metrics.clone(),
            leaving: is_closing.clone(),
            stop: is_stopped.clone(),
        };
        let calling = egress::flow::Context {
            pools,
            pods: self.tables.pods.clone(),
            credentials: self.tables.credentials.subscribe(),
            metrics: metrics.clone(),
            stop: is_stopped,
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
        let stopping = drain(&self.settings, &self.tables, &self.board, &metrics, &shutdown, closing);
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

/// Waits for the stop, then lets everything come to its end. What is left when this returns is cut.
async fn drain(
    settings: &Settings,
    tables: &Tables,
    board: &Board,
    metrics: &Metrics,
    shutdown: &Shutdown,
    closing: Trigger,
) {
    shutdown.started().await;
    let began = Instant::now();
    let end = began + settings.drain.total;
    board.draining();
    // Somebody may still be sent here as long as a slice lists this pod; flows need half of the time at most.
    let unlisted = async {
        let mut changes = tables.ports.subscribe();
        while tables.ports.read(|ports| ports.lists_ready(&settings.pod_name))
            && changes.changed().await.is_ok()
        {}
    };
    let accept_until = began + settings.drain.total / 2;
    let _ = timeout_at(accept_until, unlisted).await;
    sleep_until((Instant::now() + settings.drain.linger).min(accept_until)).await;
    closing.start();
    tracing::info!(
        flows = metrics.open_flows(),
        "no new flows are accepted; waiting for those that are open"
    );
    let quiet = async {
        loop {
            metrics.no_flows().await;
            sleep(GOODBYE).await;
            if metrics.open_flows() == 0 {
                return;
            }
        }
    };
    let _ = timeout_at((Instant::now() + settings.drain.flows).min(end), quiet).await;
}

/// Counters of Services that are no longer exported go with them.
async fn forget_unexported(tables: Tables, metrics: Metrics) {
    let mut exports = tables.exports.subscribe();
    while exports.changed().await.is_ok() {
        metrics.forget(|labels| {
            let target = Target {
                host: None,
                service: labels.service.clone(),
                namespace: labels.namespace.clone(),
                port: labels.port,
            };
            labels.direction == Direction::inbound && !tables.services.read(|t| t.is_exported(&target))
        });
    }
}
