//! Decides which connection a flow gets, when to dial ahead, and which connections to give up. Pure: events in,
//! actions out; sockets, tasks and waiting are `pool`'s.
//!
//! Invariants: never more than [`Limits::dials`] dials in flight; a connection of an older epoch, an address that
//! is gone, past its age, or about to expire is never lent; every waiter gets a connection or a reason by its deadline.

use linkspan_core::api::reason::Reason;
use std::{collections::VecDeque, net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// What the pool may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Spare connections kept even when nothing happens.
    pub min_spares: usize,
    /// Most spare connections that demand can ask for.
    pub max_spares: usize,
    /// Most idle connections.
    pub max_idle: usize,
    /// Most dials in flight.
    pub dials: usize,
    /// Age at which a connection takes no new flow.
    pub max_age: Duration,
    /// Idle time after which connections beyond the spares are closed.
    pub idle_time: Duration,
    /// Longest time a flow waits for a connection.
    pub patience: Duration,
    /// Wait after a failed dial: first and longest.
    pub retry: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_spares: 2,
            max_spares: 64,
            max_idle: 256,
            dials: 16,
            max_age: Duration::from_secs(3600),
            idle_time: Duration::from_secs(60),
            patience: Duration::from_millis(900),
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}

/// Names a connection.
pub type ConnectionId = u64;
/// Names a flow that waits.
pub type WaiterId = u64;

/// What matters of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub id: ConnectionId,
    /// The other end.
    pub address: SocketAddr,
    /// With which credentials it was made.
    pub epoch: u64,
    /// When it was made.
    pub born: Instant,
    /// From when on it takes no flow, because its peer's certificate ends.
    pub retires: Instant,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A flow wants a connection.
    Lease(WaiterId),
    /// A dial succeeded after so long.
    Dialed(Connection, Duration),
    /// A dial failed.
    DialFailed(Reason),
    /// A flow gave its connection back.
    Returned(Connection),
    /// An idle connection ended, or its peer wants no new flows on it.
    Gone(ConnectionId),
    /// What dials need has changed.
    Peer {
        /// Of the newest credentials.
        epoch: u64,
        /// All addresses.
        addresses: Vec<SocketAddr>,
        /// Why nothing can be dialed.
        blocked: Option<Reason>,
    },
    /// Time has passed.
    Tick,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give this idle connection to this flow.
    Lend(ConnectionId, WaiterId),
    /// Tell this flow that it gets none.
    Fail(WaiterId, Reason),
    /// Dial once.
    Dial,
    /// Close this idle connection.
    Close(ConnectionId),
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A flow that waits for a connection.
struct Waiter {
    id: WaiterId,
    deadline: Instant,
    /// Failures of dials that began before it came: they say nothing of one that begins now.
    grace: usize,
}

/// The pool of one Link.
pub struct PoolState {
    limits: Limits,
    idle: Vec<Idle>,
    waiting: VecDeque<Waiter>,
    dialing: usize,
    epoch: u64,
    addresses: Vec<SocketAddr>,
    blocked: Option<Reason>,
    retry_at: Option<Instant>,
    retry_step: Duration,
    demand: Demand,
}

impl PoolState {
    /// An empty pool that cannot dial before [`Event::Peer`].
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            dialing: 0,
            epoch: 0,
            addresses: Vec::new(),
            blocked: Some(Reason::NoCredentials),
            retry_at: None,
            retry_step: limits.retry.0,
            demand: Demand { flows: 0.0, at: now, handshake: Duration::ZERO },
        }
    }

    /// Connections that are idle now.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Takes in what happened; `jitter` is a random number from 0 to 1.
    pub fn on(&mut self, event: Event, now: Instant, jitter: f64) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Lease(waiter) => {
                self.demand.add(now);
                let deadline = now + self.limits.patience;
                self.waiting.push_back(Waiter { id: waiter, deadline, grace: self.dialing });
            }
            Event::Dialed(connection, took) => {
                self.dialing = self.dialing.saturating_sub(1);
                (self.retry_at, self.retry_step) = (None, self.limits.retry.0);
                self.demand.handshake = took;
                self.take_in(connection, now, &mut actions);
            }
            Event::DialFailed(reason) => {
                self.dialing = self.dialing.saturating_sub(1);
                self.retry_at = Some(now + self.retry_step.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0));
                self.retry_step = (self.retry_step * 2).min(self.limits.retry.1);
                let none = self.dialing == 0 && self.idle.is_empty();
                self.waiting.retain_mut(|waiter| {
                    let fails = none && waiter.grace == 0;
                    waiter.grace = waiter.grace.saturating_sub(1);
                    if fails {
                        actions.push(Action::Fail(waiter.id, reason));
                    }
                    !fails
                });
            }
            Event::Returned(connection) => self.take_in(connection, now, &mut actions),
            Event::Gone(id) => self.idle.retain(|idle| idle.connection.id != id),
            Event::Peer { epoch, addresses, blocked } => {
                (self.epoch, self.addresses, self.blocked) = (epoch, addresses, blocked);
                (self.retry_at, self.retry_step) = (None, self.limits.retry.0);
            }
            Event::Tick => {}
        }
        self.retire(now, &mut actions);
        self.serve(now, &mut actions);
        self.refill(now, &mut actions);
        actions
    }

    /// When to send [`Event::Tick`] if nothing else happens first.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let patience = self.waiting.front().map(|waiter| waiter.deadline);
        let retry = self.retry_at.filter(|_| self.blocked.is_none());
        let oldest = self.idle.iter().map(|idle| self.lent_until(&idle.connection)).min();
        let excess = (self.idle.len() > self.limits.min_spares)
            .then(|| self.idle.iter().map(|idle| idle.since + self.limits.idle_time).min())
            .flatten()
            // While demand keeps them, look again now and then.
            .map(|at| at.max(now + Duration::from_secs(1)));
        [patience, retry, oldest, excess].into_iter().flatten().min()
    }

    fn usable(&self, connection: &Connection, now: Instant) -> bool {
        connection.epoch == self.epoch
            && self.addresses.contains(&connection.address)
            && now < self.lent_until(connection)
            && self.blocked.is_none()
    }

    fn lent_until(&self, connection: &Connection) -> Instant {
        (connection.born + self.limits.max_age).min(connection.retires)
    }

    fn take_in(&mut self, connection: Connection, now: Instant, actions: &mut Vec<Action>) {
        let room = self.idle.len() < self.limits.max_idle || !self.waiting.is_empty();
        if room && self.usable(&connection, now) {
            self.idle.push(Idle { connection, since: now });
        } else {
            actions.push(Action::Close(connection.id));
        }
    }

    /// Closes what may not be lent any more, and what nobody has needed for long.
    fn retire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let spares = self.spares(now);
        let idle = std::mem::take(&mut self.idle);
        let mut excess = idle.len().saturating_sub(spares);
        for one in idle {
            // The front of the list was used least recently.
            let long_idle = excess > 0 && now >= one.since + self.limits.idle_time;
            if long_idle || !self.usable(&one.connection, now) {
                excess = excess.saturating_sub(1);
                actions.push(Action::Close(one.connection.id));
            } else {
                self.idle.push(one);
            }
        }
    }

    /// Gives idle connections to waiters in order, the most recently used (and warmest) first.
    fn serve(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some(waiter) = self.waiting.pop_front() {
            if now >= waiter.deadline {
                actions.push(Action::Fail(waiter.id, self.blocked.unwrap_or(Reason::Timeout)));
            } else if let Some(reason) = self.blocked {
                actions.push(Action::Fail(waiter.id, reason));
            } else if let Some(idle) = self.idle.pop() {
                actions.push(Action::Lend(idle.connection.id, waiter.id));
            } else {
                self.waiting.push_front(waiter);
                return;
            }
        }
    }

    fn refill(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.blocked.is_some() {
            return;
        }
        let wanted = (self.waiting.len() + self.spares(now)).saturating_sub(self.idle.len() + self.dialing);
        let allowed = if self.retry_at.is_some_and(|at| now < at) {
            // After a failure only a flow that waits may cause a dial, one at a time.
            usize::from(!self.waiting.is_empty() && self.dialing == 0)
        } else {
            self.retry_at = None;
            self.limits.dials.saturating_sub(self.dialing)
        };
        for _ in 0..wanted.min(allowed) {
            self.dialing += 1;
            actions.push(Action::Dial);
        }
    }

    /// Spare connections that should be there: what is opened during two handshakes.
    fn spares(&self, now: Instant) -> usize {
        let ahead = self.demand.per_second(now) * self.demand.handshake.as_secs_f64() * 2.0;
        (ahead.ceil() as usize).clamp(self.limits.min_spares, self.limits.max_spares)
    }
}

/// How many flows come, and how long it takes to have a connection for one.
struct Demand {
    flows: f64,
    at: Instant,
    handshake: Duration,
}

impl Demand {
    /// Seconds over which the rate is taken.
    const WINDOW: f64 = 2.0;

    fn decayed(&self, now: Instant) -> f64 {
        self.flows * (-now.saturating_duration_since(self.at).as_secs_f64() / Self::WINDOW).exp()
    }

    fn add(&mut self, now: Instant) {
        (self.flows, self.at) = (self.decayed(now) + 1.0, now);
    }

    fn per_second(&self, now: Instant) -> f64 {
        self.decayed(now) / Self::WINDOW
    }
}

#[cfg(test)]
#[path = "pool_state_tests.rs"]
mod tests;
