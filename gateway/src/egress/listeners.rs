//! Listens on the ports that the port table names. Ports that come and go leave the others alone; flows of a port
//! that went end by themselves or by the called side.

use crate::{
    egress::{
        flow::{Context, carry},
        port_table::{PortTable, Route},
    },
    probe::board::Board,
    record::{Direction, FlowLabels},
    shared::Shared,
    tunnel::socket::prepare_listener,
};
use linkspan_core::process::{admin::bind, shutdown::Shutdown};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Wait until a port that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Pause when the system cannot give another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Everything the listeners work with.
pub struct Listeners {
    /// Address to bind ports on.
    pub address: IpAddr,
    /// Which ports, and where they lead.
    pub table: Arc<Shared<PortTable>>,
    /// Where ports are reported.
    pub board: Board,
    /// What flows need.
    pub flows: Context,
    /// From when on no new connection is accepted.
    pub closing: Shutdown,
}

/// A port that is listened on: dropping the sender closes it.
struct Open {
    route: watch::Sender<Route>,
}

/// Listens until no new connection is accepted any more; returns once all flows have ended and no flow goes on.
pub async fn listen(listeners: Listeners) {
    let mut changes = listeners.table.subscribe();
    let mut open: HashMap<u16, Open> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        changes.mark_unchanged();
        let (routes, conflicts) = listeners.table.read(PortTable::routes);
        open.retain(|port, _| routes.contains_key(port));
        let failed = bind_missing(&listeners, &routes, &mut open, &mut tasks).await;
        let mut bound: Vec<u16> = open.keys().copied().collect();
        bound.sort_unstable();
        let retry = (!failed.is_empty()).then(|| Instant::now() + RETRY);
        for (port, conflict) in &conflicts {
            tracing::warn!(port, conflict, "two slices claim one port");
        }
        listeners.board.ports(bound, failed);
        forget(&listeners, &routes);
        tokio::select! {
            () = listeners.closing.started() => break,
            changed = changes.changed() => if changed.is_err() { break },
            () = until(retry) => {}
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of an egress port failed; the port is bound again");
                    open.retain(|_, one| !one.route.is_closed());
                    sleep(PAUSE).await;
                }
            }
        }
    }
    drop(open);
    while tasks.join_next().await.is_some() {}
    listeners.flows.stop.started().await;
}

/// Binds ports that are not yet open and hands new routes to those that are. What could not be bound, and why.
async fn bind_missing(
    listeners: &Listeners,
    routes: &BTreeMap<u16, Route>,
    open: &mut HashMap<u16, Open>,
    tasks: &mut JoinSet<()>,
) -> BTreeMap<u16, String> {
    let mut failed = BTreeMap::new();
    for (port, route) in routes {
        if let Some(one) = open.get(port) {
            one.route.send_if_modified(|before| {
                let changed = before != route;
                *before = route.clone();
                changed
            });
            continue;
        }
        let bound = bind(SocketAddr::new(listeners.address, *port)).await;
        let bound = bound
            .and_then(|listener| prepare_listener(&listener).map(|()| listener).map_err(|e| e.to_string()));
        match bound {
            Ok(listener) => {
                let (route, receiver) = watch::channel(route.clone());
                tasks.spawn(accept(listener, receiver, listeners.flows.clone()));
                open.insert(*port, Open { route });
            }
            Err(cause) => {
                tracing::warn!(port, cause, "egress port is not served; trying again");
                failed.insert(*port, cause);
            }
        }
    }
    failed
}

/// Counters of targets that no port leads to any more go with them.
fn forget(listeners: &Listeners, routes: &BTreeMap<u16, Route>) {
    let label = |route: &Route| FlowLabels::new(Direction::outbound, &route.link, &route.target);
    let kept: HashSet<FlowLabels> = routes.values().map(label).collect();
    let metrics = &listeners.flows.metrics;
    metrics.forget(|labels| labels.direction == Direction::outbound && !kept.contains(labels));
}

/// Accepts on one port until it goes; returns when its flows have ended.
async fn accept(listener: TcpListener, mut route: watch::Receiver<Route>, context: Context) {
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            changed = route.changed() => if changed.is_err() { break },
            Some(ended) = flows.join_next(), if !flows.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((local, from)) => {
                    let (to, context) = (route.borrow().clone(), context.clone());
                    flows.spawn(async move { carry(local, from.ip(), &to, &context).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = flows.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a flow failed");
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
