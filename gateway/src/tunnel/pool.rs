//! The sockets of one Link's pool. Whoever leases or returns does so under a short lock, by what `pool_state` decides;
//! one task dials, keeps time, and watches the idle connections, so that one that ends is replaced before a flow meets
//! it.

mod task;

use crate::{
    mtls::expiry::Expiry,
    record::Metrics,
    tunnel::{
        channel::Channel,
        dial::DialError,
        peer_state::PeerState,
        pool::task::Task,
        pool_state::{Action, Connection, ConnectionId, Event, Limits, PoolState, WaiterId},
    },
    wire::{self, Frame},
};
use linkspan_core::{api::reason::Reason, process::clock::Clock};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

/// Flows that may wait for a connection.
const WAITERS: usize = 4096;
/// Longest time a flow waits for an answer of the pool, which answers sooner by its own deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

type Answer = Result<Leased, DialError>;

/// Asks for connections of one Link.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Wakes the pool's task.
    wake: Arc<Notify>,
}

struct Inner {
    state: PoolState,
    jitter: Box<dyn FnMut() -> f64 + Send>,
    idle: HashMap<ConnectionId, Leased>,
    waiters: HashMap<WaiterId, oneshot::Sender<Answer>>,
    /// Dials that the task has to begin.
    dials: usize,
    next_id: u64,
    last_error: Option<DialError>,
    /// Of the pool's task: what happens on idle connections wakes it.
    waker: Option<Waker>,
    /// When the task wakes by itself.
    armed: Option<Instant>,
    over: bool,
}

/// A connection lent to one flow. Dropped: it is closed.
pub struct Leased {
    /// The connection.
    pub channel: Box<Channel>,
    id: ConnectionId,
    epoch: u64,
    born: Instant,
    expiry: Expiry,
    pool: Pool,
    _counted: Counted,
}

/// One connection that exists; the pool's task hears of its end.
struct Counted {
    _all: Arc<()>,
    wake: Arc<Notify>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Leased {
    /// Gives the connection back for the next flow.
    pub fn give_back(self) {
        if !self.channel.is_leaving() {
            self.pool.clone().take_in(self, None);
        }
    }

    /// When its flow must end.
    pub fn ends(&self) -> Instant {
        self.expiry.ends
    }

    fn about(&self) -> Connection {
        Connection {
            id: self.id,
            address: self.channel.address(),
            epoch: self.epoch,
            born: self.born,
            retires: self.expiry.retires,
        }
    }

    /// Reads what comes while nobody has leased the connection. Ready when no flow may have it any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.channel.poll_event(cx) {
                Poll::Ready(Ok(wire::Event::Frame(frame))) if frame != Frame::GoAway => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Pool {
    /// A pool and the work of its task; `jitter` gives random numbers from 0 to 1.
    pub fn new(
        link: &str,
        limits: Limits,
        peer: watch::Receiver<PeerState>,
        metrics: Metrics,
        clock: Clock,
        jitter: Box<dyn FnMut() -> f64 + Send>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let inner = Inner {
            state: PoolState::new(limits, Instant::now()),
            jitter,
            idle: HashMap::new(),
            waiters: HashMap::new(),
            dials: 0,
            next_id: 0,
            last_error: None,
            waker: None,
            armed: None,
            over: false,
        };
        let pool = Self(Arc::new(Shared { inner: Mutex::new(inner), wake: Arc::default() }));
        let task = Task {
            link: link.to_owned(),
            pool: pool.clone(),
            peer,
            metrics,
            clock,
            dials: JoinSet::new(),
            counted: Arc::new(()),
            told_many: false,
        };
        (pool, task.run())
    }

    /// A connection for one flow.
    ///
    /// # Errors
    /// When there is none within a second: why.
    pub async fn lease(&self) -> Result<Leased, DialError> {
        let waiting = {
            let mut inner = self.lock();
            if inner.over {
                return Err(internal("the link was removed"));
            }
            if inner.waiters.len() >= WAITERS {
                return Err(internal("too many flows wait for a connection"));
            }
            let waiter = inner.new_id();
            match inner.on(Event::Lease(waiter), Some(waiter)) {
                Some(answer) => {
                    self.wake_for(&inner);
                    return answer;
                }
                None => {
                    let (answer, waiting) = oneshot::channel();
                    inner.waiters.insert(waiter, answer);
                    self.wake_for(&inner);
                    waiting
                }
            }
        };
        match timeout(ANSWER_TIMEOUT, waiting).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(internal("the link was removed")),
            Err(_) => {
                let detail = "no connection to the link's gateway in time".to_owned();
                Err(DialError { reason: Reason::Timeout, detail })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task where it has something to do that it does not know of.
    fn wake_for(&self, inner: &Inner) {
        let sooner = match (inner.state.wake_at(Instant::now()), inner.armed) {
            (Some(at), Some(armed)) => at < armed,
            (at, None) => at.is_some(),
            (None, _) => false,
        };
        if inner.dials > 0 || sooner {
            self.0.wake.notify_one();
        }
    }

    /// Takes in a connection that was lent, or that was made within `took`; what happens on it from now on wakes the task.
    fn take_in(&self, mut leased: Leased, took: Option<Duration>) {
        let mut inner = self.lock();
        if inner.over {
            return;
        }
        let waker = inner.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let ended = leased.poll_end(&mut Context::from_waker(&waker)).is_ready();
        let about = leased.about();
        let event = match (took, ended) {
            (Some(took), false) => Event::Dialed(about, took),
            (Some(_), true) => Event::DialFailed(Reason::Draining),
            (None, false) => Event::Returned(about),
            (None, true) => return,
        };
        if !ended {
            inner.idle.insert(about.id, leased);
        }
        inner.on(event, None);
        self.wake_for(&inner);
    }

    fn on(&self, event: Event) {
        self.lock().on(event, None);
    }

    /// Looks after the idle connections. Ready when one has ended.
    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        let ended: Vec<ConnectionId> = inner
            .idle
            .iter_mut()
            .filter_map(|(id, leased)| leased.poll_end(cx).is_ready().then_some(*id))
            .collect();
        for id in &ended {
            inner.idle.remove(id);
            inner.on(Event::Gone(*id), None);
        }
        if ended.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Inner {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes in what happened and does what is decided then, dials aside; the answer for the flow `asking`, if there is
    /// one.
    fn on(&mut self, event: Event, asking: Option<WaiterId>) -> Option<Answer> {
        let jitter = (self.jitter)();
        let mut ours = None;
        for action in self.state.on(event, Instant::now(), jitter) {
            let (waiter, answer) = match action {
                Action::Dial => {
                    self.dials += 1;
                    continue;
                }
                Action::Close(id) => {
                    if let Some(leased) = self.idle.remove(&id) {
                        leased.channel.close();
                    }
                    continue;
                }
                Action::Lend(id, waiter) => match self.idle.remove(&id) {
                    Some(leased) => (waiter, Ok(leased)),
                    None => (waiter, Err(internal("a connection was lent twice"))),
                },
                Action::Fail(waiter, reason) => (waiter, Err(self.failure(reason))),
            };
            if asking == Some(waiter) {
                ours = Some(answer);
            } else if let Some(Err(Ok(leased))) = self.waiters.remove(&waiter).map(|w| w.send(answer)) {
                // The flow has given up: its connection is as good as before.
                let about = leased.about();
                self.idle.insert(about.id, leased);
                self.on(Event::Returned(about), None);
            }
        }
        ours
    }

    fn failure(&self, reason: Reason) -> DialError {
        let detail = match &self.last_error {
            Some(e) if e.reason == reason => e.detail.clone(),
            _ => reason.advice().to_owned(),
        };
        DialError { reason, detail }
    }
}

fn internal(detail: &str) -> DialError {
    DialError { reason: Reason::Internal, detail: detail.to_owned() }
}
