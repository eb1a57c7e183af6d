//! Puts the parts together: the only file that knows all of them.

use crate::{
    apply::Apply,
    config::Config,
    credentials::{self, AccessBoard, CredentialsContext},
    exporter::run::{Exporter, Gate},
    gateways::{self, Gateways},
    issuer::{self, Exchange, IssuerContext},
    leader,
    link::{remotes::Remotes, supervisor::Supervisor},
    metrics::{Counters, Lags, Probes, Shown, Watches, Writes},
    observe::local::Local,
    ports::keeper,
    reconcile::Reconciler,
    split::{leaving, run::Splitter},
    status::publish::Reporter,
    world::World,
};
use anyhow::{Context as _, anyhow};
use kube::Client;
use linkspan_core::process::{
    admin::{self, Admin},
    clock::Clock,
    kube_client,
    readiness::Readiness,
    shutdown::Shutdown,
};
use prometheus_client::registry::Registry;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Longest that an orderly stop may take: giving back the Lease, above all.
const STOP: Duration = Duration::from_secs(8);

/// A controller that is set up.
pub struct App {
    tasks: JoinSet<anyhow::Result<()>>,
    election: JoinSet<()>,
    /// Where the admin port is.
    pub admin_addr: SocketAddr,
}

/// What most parts share.
#[derive(Clone)]
struct Shared {
    client: Client,
    namespace: String,
    world: Arc<World>,
    leads: watch::Sender<bool>,
    clock: Clock,
    shutdown: Shutdown,
    readiness: Readiness,
}

impl App {
    /// Connects, binds, and starts everything.
    ///
    /// # Errors
    /// When this cluster's API or the admin port cannot be used.
    pub async fn start(config: Config, clock: Clock, shutdown: Shutdown) -> anyhow::Result<Self> {
        let connect = kube_client::config_of_daemon(&config.connect()).await?;
        let client = kube_client::client(connect)?;
        let listener = admin::bind(config.admin_addr).await.map_err(|e| anyhow!(e))?;
        let admin_addr = listener.local_addr().context("the admin port has no address")?;
        let shared = Shared {
            client,
            namespace: config.namespace.clone(),
            world: Arc::default(),
            leads: watch::Sender::new(false),
            clock,
            shutdown,
            readiness: Readiness::default(),
        };
        let (probes, writes, counters) =
            (Arc::<Probes>::default(), Arc::<Writes>::default(), Arc::<Counters>::default());
        let (watches, lags) = (Arc::<Watches>::default(), Arc::<Lags>::default());
        shared.world.change(|s| s.create_namespaces.clone_from(&config.create_namespaces));
        let exchange = Exchange::default();
        let (board, remotes, links) = (AccessBoard::default(), Remotes::default(), watch::Sender::new(None));
        let gateways = Arc::new(Gateways::new(shared.world.clone(), probes.clone()));
        let apply = Apply::new(shared.client.clone(), shared.leads.subscribe(), writes.clone());
        let reporter = Reporter {
            name: config.pod_name.clone(),
            world: shared.world.clone(),
            links: links.subscribe(),
            remotes: remotes.clone(),
            board: board.clone(),
            leader: shared.leads.subscribe(),
            clock: shared.clock.clone(),
        };
        let mut tasks = Tasks { set: JoinSet::new(), shutdown: shared.shutdown.clone() };
        start_admin(
            &mut tasks,
            &shared,
            listener,
            reporter.clone(),
            Shown {
                world: shared.world.clone(),
                remotes: remotes.clone(),
                probes,
                writes,
                counters: counters.clone(),
                board: board.clone(),
                exchange: exchange.clone(),
                watches: watches.clone(),
                lags: lags.clone(),
                leader: shared.leads.subscribe(),
            },
        );
        start_local(&mut tasks, &shared, links.clone(), &gateways, (config.gateway_admin_port, &watches));
        let exporter = Exporter::new(
            shared.client.clone(),
            shared.namespace.clone(),
            Gate {
                selector: config.export_namespaces.clone(),
                reporter: config.pod_name.clone(),
                clock: shared.clock.clone(),
            },
            apply.clone(),
            shared.world.clone(),
            watches.clone(),
        );
        start_exporter(&mut tasks, &shared, &exporter);
        start_splits(&mut tasks, &shared, apply.clone());
        start_mirrors(&mut tasks, &shared, apply, (counters, lags.clone()), reporter);
        let supervisor = Supervisor {
            world: shared.world.clone(),
            board: board.clone(),
            remotes,
            watches,
            lags,
            clock: shared.clock.clone(),
        };
        tasks.add(supervisor.run(links.subscribe(), shared.shutdown.clone()));
        start_trust(&mut tasks, &shared, board, exchange, config.ca_dir);
        Ok(Self { tasks: tasks.set, election: start_election(shared, config.pod_name), admin_addr })
    }

    /// Runs until the shutdown has begun and everything has ended.
    ///
    /// # Errors
    /// The first part that broke: the process should end, and be started anew.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let broken = loop {
            tokio::select! {
                () = shutdown.started() => break Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) if shutdown.has_started() => {}
                    Ok(Ok(())) => break Err(anyhow!("a part of the controller ended by itself")),
                    Ok(Err(error)) => break Err(error),
                    Err(error) => break Err(anyhow!(error).context("a part of the controller broke")),
                },
                Some(ended) = self.election.join_next() => break ended.context("the election broke"),
            }
        };
        if broken.is_ok() {
            // The Lease is given back first, then what is under way may end.
            let stop = async {
                while self.election.join_next().await.is_some() {}
                while self.tasks.join_next().await.is_some() {}
            };
            if timeout(STOP, stop).await.is_err() {
                tracing::warn!("some work did not end in time and is dropped");
            }
        }
        broken
    }
}

/// The controller's tasks; those that never end by themselves end with the shutdown.
struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    shutdown: Shutdown,
}

impl Tasks {
    fn add(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.set.spawn(async move {
            tokio::select! {
                () = task => {}
                () = async { shutdown.started().await; tokio::time::sleep(STOP / 2).await } => {}
            }
            Ok(())
        });
    }

    /// A watch: there is nothing to finish when the stop begins.
    fn add_watch(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.set.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.started() => {}
            }
            Ok(())
        });
    }

    fn add_part(&mut self, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.set.spawn(task);
    }
}

fn start_admin(
    tasks: &mut Tasks,
    shared: &Shared,
    listener: tokio::net::TcpListener,
    reporter: Reporter,
    shown: Shown,
) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(shown));
    let admin = Admin {
        readiness: shared.readiness.clone(),
        metrics: Arc::new(registry),
        routes: Arc::new(move |request| {
            (request.uri().path() == "/links").then(|| admin::json(&reporter.report()))
        }),
    };
    tasks.add(admin::serve(listener, admin, shared.shutdown.clone()));
}

fn start_local(
    tasks: &mut Tasks,
    shared: &Shared,
    links: watch::Sender<Option<crate::observe::local::Links>>,
    gateways: &Arc<Gateways>,
    (gateway_admin_port, watches): (u16, &Arc<Watches>),
) {
    let local = Local {
        client: shared.client.clone(),
        namespace: shared.namespace.clone(),
        world: shared.world.clone(),
        links,
        gateways: gateways.clone(),
        readiness: shared.readiness.clone(),
        watches: watches.clone(),
    };
    tasks.add_watch(local.clone().links());
    tasks.add_watch(local.clone().namespaces());
    tasks.add_watch(local.clone().services());
    tasks.add_watch(local.clone().slices());
    tasks.add_watch(local.gateway_places());
    tasks.add_watch(gateways::follow(gateways.clone(), gateway_admin_port, shared.shutdown.clone()));
}

fn start_exporter(tasks: &mut Tasks, shared: &Shared, exporter: &Exporter) {
    tasks.add_watch(exporter.clone().gate());
    tasks.add_watch(exporter.clone().services(shared.readiness.clone()));
    tasks.add_watch(exporter.clone().slices());
    tasks.add_watch(exporter.clone().published());
    tasks.add(exporter.clone().write(shared.leads.subscribe(), shared.shutdown.clone()));
}

fn start_mirrors(
    tasks: &mut Tasks,
    shared: &Shared,
    apply: Apply,
    (counters, lags): (Arc<Counters>, Arc<Lags>),
    reporter: Reporter,
) {
    let reconciler = Reconciler {
        world: shared.world.clone(),
        apply,
        client: shared.client.clone(),
        namespace: shared.namespace.clone(),
        leader: shared.leads.subscribe(),
        clock: shared.clock.clone(),
        counters,
        lags,
    };
    tasks.add(reconciler.run(shared.shutdown.clone()));
    tasks.add(keeper::keep(
        shared.world.clone(),
        shared.client.clone(),
        shared.namespace.clone(),
        shared.leads.subscribe(),
        shared.clock.clone(),
        shared.shutdown.clone(),
    ));
    tasks.add(reporter.publish(shared.client.clone(), shared.namespace.clone(), shared.shutdown.clone()));
}

fn start_splits(tasks: &mut Tasks, shared: &Shared, apply: Apply) {
    let splitter = Splitter::new(
        shared.client.clone(),
        shared.namespace.clone(),
        shared.world.clone(),
        apply,
        shared.leads.subscribe(),
        shared.clock.clone(),
    );
    tasks.add_watch(splitter.clone().services());
    tasks.add_watch(splitter.clone().slices());
    tasks.add_watch(splitter.clone().policies());
    tasks.add_watch(splitter.clone().splits());
    tasks.add_watch(splitter.clone().groups());
    tasks.add(splitter.run(shared.shutdown.clone()));
    let (client, namespace, shutdown) =
        (shared.client.clone(), shared.namespace.clone(), shared.shutdown.clone());
    tasks.add_part(async move {
        shutdown.started().await;
        leaving::leave(&client, &namespace).await;
        Ok(())
    });
}

fn start_election(shared: Shared, pod_name: String) -> JoinSet<()> {
    let Shared { client, namespace, leads, clock, shutdown, .. } = shared;
    let mut election = JoinSet::new();
    election.spawn(leader::run(client, namespace, pod_name, leads, clock, shutdown));
    election
}

/// Issuer and credentials; the issuer waits until this cluster's id can be read.
fn start_trust(
    tasks: &mut Tasks,
    shared: &Shared,
    board: AccessBoard,
    exchange: Exchange,
    ca_dir: Option<PathBuf>,
) {
    tasks.add_part(credentials::run(CredentialsContext {
        client: shared.client.clone(),
        namespace: shared.namespace.clone(),
        leader: shared.leads.subscribe(),
        clock: shared.clock.clone(),
        shutdown: shared.shutdown.clone(),
        exchange: exchange.clone(),
        board,
    }));
    let shared = shared.clone();
    tasks.add_part(async move {
        let Some(trust_domain) = trust_domain(&shared).await else { return Ok(()) };
        issuer::run(IssuerContext {
            client: shared.client,
            namespace: shared.namespace,
            ca_dir,
            trust_domain,
            leader: shared.leads.subscribe(),
            clock: shared.clock,
            shutdown: shared.shutdown,
            exchange,
        })
        .await
    });
}

/// This cluster's trust domain, asked for until it is known; `None` when the shutdown came first.
async fn trust_domain(shared: &Shared) -> Option<linkspan_core::api::identity::TrustDomain> {
    let ready = shared.readiness.register("trust domain", "namespace kube-system could not be read yet");
    loop {
        match timeout(Duration::from_secs(10), issuer::trust_domain(&shared.client)).await {
            Ok(Ok(domain)) => {
                ready.ready();
                return Some(domain);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "this cluster's id is not known; trying again");
            }
            Err(_) => tracing::warn!("reading namespace kube-system took too long; trying again"),
        }
        tokio::select! {
            () = shared.shutdown.started() => return None,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}
