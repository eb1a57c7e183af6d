//! The sockets of one Link's pool. One task does what `pool_state` decides, and watches the idle connections, so
//! that one that ends is replaced before a flow meets it.

use crate::{
    record::Metrics,
    tunnel::{
        channel::Channel,
        dial::{DialError, Dialed, dial},
        peer_state::PeerState,
        pool_state::{Action, Connection, ConnectionId, Event, Limits, PoolState, WaiterId},
    },
    wire::{self, Frame},
};
use futures::stream::{FuturesUnordered, StreamExt};
use linkspan_core::api::reason::Reason;
use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

/// Requests that wait for the pool's task.
const QUEUE: usize = 4096;
/// Longest time a flow waits for an answer of the pool, which answers sooner by its own deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<Leased, DialError>>;

/// Asks for connections of one Link.
#[derive(Clone)]
pub struct Pool {
    requests: mpsc::Sender<Request>,
}

enum Request {
    Lease(Reply),
    Return(Leased),
}

/// A connection lent to one flow. Dropped: it is closed.
pub struct Leased {
    /// The connection.
    pub channel: Box<Channel>,
    id: ConnectionId,
    epoch: u64,
    born: Instant,
    back: mpsc::Sender<Request>,
    /// Counts the connections that exist.
    _counted: Arc<()>,
}

impl Leased {
    /// Gives the connection back for the next flow.
    pub fn give_back(self) {
        if !self.channel.is_leaving() {
            let back = self.back.clone();
            // When the pool is gone or has more to do than it can, the connection is closed.
            let _ = back.try_send(Request::Return(self));
        }
    }

    fn about(&self) -> Connection {
        Connection { id: self.id, address: self.channel.address(), epoch: self.epoch, born: self.born }
    }
}

impl Pool {
    /// A pool and the work of its task.
    pub fn new(
        link: &str,
        limits: Limits,
        peer: watch::Receiver<PeerState>,
        metrics: Metrics,
        jitter: Box<dyn FnMut() -> f64 + Send>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let worker = Worker {
            link: link.to_owned(),
            state: PoolState::new(limits, Instant::now()),
            peer,
            metrics,
            jitter,
            back: requests.clone(),
            waiters: HashMap::new(),
            takers: HashMap::new(),
            resting: FuturesUnordered::new(),
            dials: JoinSet::new(),
            next_id: 0,
            last_error: None,
            counted: Arc::new(()),
        };
        (Self { requests }, worker.run(queue))
    }

    /// A connection for one flow.
    ///
    /// # Errors
    /// When there is none within a second: why.
    pub async fn lease(&self) -> Result<Leased, DialError> {
        let busy = |detail: &str| DialError { reason: Reason::Internal, detail: detail.to_owned() };
        let (reply, answer) = oneshot::channel();
        self.requests
            .try_send(Request::Lease(reply))
            .map_err(|_| busy("too many flows wait for a connection"))?;
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(busy("the link was removed")),
            Err(_) => {
                let detail = "no connection to the link's gateway in time".to_owned();
                Err(DialError { reason: Reason::Timeout, detail })
            }
        }
    }
}

/// How the rest of an idle connection ended.
enum Rest {
    /// It was lent, or closed as asked.
    Over,
    /// The flow it was lent to does not want it any more.
    Unwanted(Leased),
    /// It ended by itself, just as it was lent to somebody perhaps.
    Gone(ConnectionId, Option<Reply>),
}

/// An idle connection: waits to be taken, and notices its end.
async fn rest(mut leased: Leased, mut taken: oneshot::Receiver<Reply>) -> Rest {
    loop {
        tokio::select! {
            biased;
            event = leased.channel.event() => match event {
                Ok(wire::Event::Frame(frame)) if frame != Frame::GoAway => {}
                _ => {
                    taken.close();
                    return Rest::Gone(leased.id, taken.try_recv().ok());
                }
            },
            reply = &mut taken => return match reply {
                Ok(reply) => match reply.send(Ok(leased)) {
                    Err(Ok(leased)) => Rest::Unwanted(leased),
                    _ => Rest::Over,
                },
                Err(_) => {
                    leased.channel.close().await;
                    Rest::Over
                }
            },
        }
    }
}

struct Worker {
    link: String,
    state: PoolState,
    peer: watch::Receiver<PeerState>,
    metrics: Metrics,
    jitter: Box<dyn FnMut() -> f64 + Send>,
    back: mpsc::Sender<Request>,
    waiters: HashMap<WaiterId, Reply>,
    takers: HashMap<ConnectionId, oneshot::Sender<Reply>>,
    resting: FuturesUnordered<Pin<Box<dyn Future<Output = Rest> + Send>>>,
    dials: JoinSet<Result<Dialed, DialError>>,
    next_id: u64,
    last_error: Option<DialError>,
    counted: Arc<()>,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        self.peer.mark_changed();
        loop {
            let wake_at = self.state.wake_at(Instant::now());
            tokio::select! {
                changed = self.peer.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.peer_changed();
                }
                request = queue.recv() => match request {
                    Some(Request::Lease(reply)) => self.wanted(reply),
                    Some(Request::Return(leased)) => self.take_in(leased, Event::Returned),
                    None => return,
                },
                Some(rest) = self.resting.next(), if !self.resting.is_empty() => self.rested(rest),
                Some(dialed) = self.dials.join_next(), if !self.dials.is_empty() => self.dialed(dialed),
                () = until(wake_at) => self.on(Event::Tick),
            }
            self.metrics.connections(&self.link, Arc::strong_count(&self.counted) - 1);
        }
    }

    fn peer_changed(&mut self) {
        let peer = self.peer.borrow_and_update().clone();
        let blocked = peer.blocked();
        if let Some((reason, detail)) = &blocked {
            self.last_error = Some(DialError { reason: *reason, detail: detail.clone() });
        }
        let blocked = blocked.map(|(reason, _)| reason);
        self.on(Event::Peer { epoch: peer.epoch, addresses: peer.addresses, blocked });
    }

    fn wanted(&mut self, reply: Reply) {
        let waiter = self.new_id();
        self.waiters.insert(waiter, reply);
        self.on(Event::Lease(waiter));
    }

    fn take_in(&mut self, leased: Leased, event: impl FnOnce(Connection) -> Event) {
        let about = leased.about();
        let (taker, taken) = oneshot::channel();
        self.takers.insert(about.id, taker);
        self.resting.push(Box::pin(rest(leased, taken)));
        self.on(event(about));
    }

    fn rested(&mut self, rest: Rest) {
        match rest {
            Rest::Over => {}
            Rest::Unwanted(leased) => self.take_in(leased, Event::Returned),
            Rest::Gone(id, waiter) => {
                self.takers.remove(&id);
                self.on(Event::Gone(id));
                if let Some(reply) = waiter {
                    self.wanted(reply);
                }
            }
        }
    }

    fn dialed(&mut self, dialed: Result<Result<Dialed, DialError>, JoinError>) {
        let dialed = dialed.unwrap_or_else(|e| {
            Err(DialError { reason: Reason::Internal, detail: format!("the dial's task failed: {e}") })
        });
        self.metrics.dialed(&self.link, dialed.as_ref().map(|d| d.took).map_err(|e| e.reason));
        match dialed {
            Ok(Dialed { channel, took, epoch }) => {
                let (id, born) = (self.new_id(), Instant::now());
                let (channel, back, counted) = (Box::new(channel), self.back.clone(), self.counted.clone());
                let leased = Leased { channel, id, epoch, born, back, _counted: counted };
                self.take_in(leased, |about| Event::Dialed(about, took));
            }
            Err(e) => {
                tracing::debug!(link = self.link, reason = %e.reason, detail = e.detail, "dial failed");
                let reason = e.reason;
                self.last_error = Some(e);
                self.on(Event::DialFailed(reason));
            }
        }
    }

    fn on(&mut self, event: Event) {
        let jitter = (self.jitter)();
        for action in self.state.on(event, Instant::now(), jitter) {
            match action {
                Action::Dial => {
                    let peer = self.peer.borrow().clone();
                    // Counted round, so that connections spread over the gateway's addresses.
                    let first = self.new_id() as usize;
                    self.dials.spawn(async move { dial(&peer, first).await });
                }
                Action::Lend(connection, waiter) => {
                    if let (Some(taker), Some(reply)) =
                        (self.takers.remove(&connection), self.waiters.remove(&waiter))
                        && let Err(reply) = taker.send(reply)
                    {
                        // It ended in this moment; its end has not been read yet.
                        self.wanted(reply);
                    }
                }
                Action::Close(connection) => drop(self.takers.remove(&connection)),
                Action::Fail(waiter, reason) => {
                    if let Some(reply) = self.waiters.remove(&waiter) {
                        let detail = match &self.last_error {
                            Some(e) if e.reason == reason => e.detail.clone(),
                            _ => reason.advice().to_owned(),
                        };
                        // A flow that has given up needs no answer.
                        let _ = reply.send(Err(DialError { reason, detail }));
                    }
                }
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
