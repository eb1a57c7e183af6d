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
    split::serve::serve as serve_split,
    tunnel::socket::prepare_listener,
};
use futures::{
    future::{AbortHandle, AbortRegistration, Abortable},
    stream::{FuturesUnordered, StreamExt},
};
use linkspan_core::process::{admin::bind, shutdown::Shutdown};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
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

/// The ports that are listened on, and where they lead.
#[derive(Default)]
struct Ports {
    open: HashMap<u16, Open>,
    /// One wait for a connection per port; all are in one task, which costs a port little.
    accepting: FuturesUnordered<Abortable<Accepting>>,
}

struct Open {
    route: Arc<Route>,
    /// Dropped or used: the port is closed.
    close: AbortHandle,
}

type Accepting =
    Pin<Box<dyn Future<Output = (u16, TcpListener, io::Result<(TcpStream, SocketAddr)>)> + Send>>;

impl Ports {
    fn accept(&self, port: u16, listener: TcpListener, close: AbortRegistration) {
        let accepting = async move {
            let accepted = listener.accept().await;
            (port, listener, accepted)
        };
        self.accepting.push(Abortable::new(Box::pin(accepting), close));
    }

    /// Goes on accepting on a port that is still wanted.
    fn accept_again(&mut self, port: u16, listener: TcpListener) -> Option<Arc<Route>> {
        let open = self.open.get_mut(&port)?;
        let (close, closing) = AbortHandle::new_pair();
        open.close = close;
        let route = open.route.clone();
        self.accept(port, listener, closing);
        Some(route)
    }

    /// Closes the ports that are in no route any more.
    fn close_missing(&mut self, routes: &BTreeMap<u16, Route>) {
        self.open.retain(|port, open| {
            let keep = routes.contains_key(port);
            if !keep {
                open.close.abort();
            }
            keep
        });
    }

    /// Binds ports that are not yet open and hands new routes to those that are. What could not be bound, and why.
    async fn open_missing(&mut self, address: IpAddr, routes: BTreeMap<u16, Route>) -> BTreeMap<u16, String> {
        let mut failed = BTreeMap::new();
        for (port, route) in routes {
            if let Some(open) = self.open.get_mut(&port) {
                if *open.route != route {
                    open.route = Arc::new(route);
                }
                continue;
            }
            let bound = bind(SocketAddr::new(address, port)).await;
            let bound = bound.and_then(|listener| match prepare_listener(&listener) {
                Ok(()) => Ok(listener),
                Err(e) => Err(e.to_string()),
            });
            match bound {
                Ok(listener) => {
                    let (close, closing) = AbortHandle::new_pair();
                    self.open.insert(port, Open { route: Arc::new(route), close });
                    self.accept(port, listener, closing);
                }
                Err(cause) => {
                    tracing::warn!(port, cause, "egress port is not served; trying again");
                    failed.insert(port, cause);
                }
            }
        }
        failed
    }

    /// Ports that accept connections, in order.
    fn bound(&self) -> Vec<u16> {
        let mut bound: Vec<u16> = self.open.keys().copied().collect();
        bound.sort_unstable();
        bound
    }
}

/// Listens until no new connection is accepted any more; returns once all flows have ended and no flow goes on.
pub async fn listen(listeners: Listeners) {
    let mut changes = listeners.table.subscribe();
    let (mut ports, mut flows) = (Ports::default(), JoinSet::new());
    let context = Arc::new(listeners.flows.clone());
    loop {
        changes.mark_unchanged();
        let (routes, conflicts) = listeners.table.read(PortTable::routes);
        for (port, conflict) in &conflicts {
            tracing::warn!(port, conflict, "two slices claim one port");
        }
        forget(&listeners, &routes);
        ports.close_missing(&routes);
        // Before anybody can connect.
        listeners.flows.splits.ports.update(&routes);
        let failed = ports.open_missing(listeners.address, routes).await;
        let retry = (!failed.is_empty()).then(|| Instant::now() + RETRY);
        listeners.board.ports(ports.bound(), failed);
        tokio::select! {
            () = listeners.closing.started() => break,
            changed = changes.changed() => if changed.is_err() { break },
            () = until(retry) => {}
            () = serve(&mut ports, &mut flows, &context) => {}
        }
    }
    drop(ports);
    while let Some(ended) = flows.join_next().await {
        report(ended);
    }
    listeners.flows.stop.started().await;
}

/// Accepts on all ports; never returns.
async fn serve(ports: &mut Ports, flows: &mut JoinSet<()>, context: &Arc<Context>) {
    loop {
        tokio::select! {
            Some(ended) = flows.join_next(), if !flows.is_empty() => report(ended),
            Some(accepted) = ports.accepting.next(), if !ports.accepting.is_empty() => {
                // The other case is a port that was closed.
                if let Ok((port, listener, accepted)) = accepted
                    && let Some(route) = ports.accept_again(port, listener)
                {
                    match accepted {
                        Ok((local, from)) => {
                            let context = context.clone();
                            flows.spawn(async move {
                                match &route.split {
                                    Some(at) => {
                                        serve_split(local, from.ip(), at.gateway_port, &context.splits).await;
                                    }
                                    None => carry(local, from.ip(), &route, &context).await,
                                }
                            });
                        }
                        Err(error) => {
                            tracing::warn!(port, %error, "cannot accept a connection; trying again");
                            sleep(PAUSE).await;
                        }
                    }
                }
            }
            else => std::future::pending().await,
        }
    }
}

/// Counters of targets that no port leads to any more go with them.
fn forget(listeners: &Listeners, routes: &BTreeMap<u16, Route>) {
    let label = |route: &Route| FlowLabels::new(Direction::outbound, &route.link, &route.target);
    let kept: HashSet<FlowLabels> = routes.values().map(label).collect();
    let metrics = &listeners.flows.metrics;
    metrics.forget(|labels| labels.direction == Direction::outbound && !kept.contains(labels));
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
