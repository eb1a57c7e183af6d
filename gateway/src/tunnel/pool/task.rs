//! The pool's task: dials, keeps time, watches the idle connections.

use super::{Counted, Leased, Pool, internal};
use crate::{
    mtls::expiry::Expiry,
    record::Metrics,
    tunnel::{
        dial::{DialError, Dialed, dial},
        peer_state::PeerState,
        pool_state::Event,
    },
};
use linkspan_core::{api::reason::Reason, process::clock::Clock};
use std::{future::poll_fn, sync::Arc};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

/// Connections to one address from which on it is told that the ports for more run out: Linux has 28,000 or so.
const MANY: usize = 24_000;

/// What the pool's task works with.
pub(super) struct Task {
    pub(super) link: String,
    pub(super) pool: Pool,
    pub(super) peer: watch::Receiver<PeerState>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) dials: JoinSet<Result<Dialed, DialError>>,
    pub(super) counted: Arc<()>,
    pub(super) told_many: bool,
}

impl Task {
    /// Works until the peer's state has no owner any more.
    pub(super) async fn run(mut self) {
        self.peer.mark_changed();
        let pool = self.pool.clone();
        loop {
            self.begin_dials();
            let wake_at = {
                let mut inner = pool.lock();
                inner.armed = inner.state.wake_at(Instant::now());
                inner.armed
            };
            tokio::select! {
                changed = self.peer.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.peer_changed();
                }
                () = pool.0.wake.notified() => {}
                () = poll_fn(|cx| pool.poll_idle(cx)) => {}
                Some(dialed) = self.dials.join_next(), if !self.dials.is_empty() => self.dialed(dialed),
                () = until(wake_at) => pool.on(Event::Tick),
            }
            self.tell_count();
        }
    }

    fn tell_count(&mut self) {
        let count = Arc::strong_count(&self.counted) - 1;
        self.metrics.connections(&self.link, count);
        let many = count >= MANY * self.peer.borrow().addresses.len().max(1);
        if many && !self.told_many {
            tracing::warn!(
                link = self.link,
                connections = count,
                "few ports are left for more flows to this gateway: add replicas here, or addresses there"
            );
        }
        self.told_many = many;
    }

    fn begin_dials(&mut self) {
        let wanted = std::mem::take(&mut self.pool.lock().dials);
        for _ in 0..wanted {
            let peer = self.peer.borrow().clone();
            // Counted round, so that connections spread over the gateway's addresses.
            let first = self.pool.lock().new_id() as usize;
            self.dials.spawn(async move { dial(&peer, first).await });
        }
    }

    fn peer_changed(&mut self) {
        let peer = self.peer.borrow_and_update().clone();
        let blocked = peer.blocked();
        let mut inner = self.pool.lock();
        if let Some((reason, detail)) = &blocked {
            inner.last_error = Some(DialError { reason: *reason, detail: detail.clone() });
        }
        let blocked = blocked.map(|(reason, _)| reason);
        inner.on(Event::Peer { epoch: peer.epoch, addresses: peer.addresses, blocked }, None);
    }

    /// Until when a new connection may be used; where that is over already, it counts as failed, so that the next try
    /// waits.
    fn valid(&self, dialed: Dialed) -> Result<(Dialed, Expiry), DialError> {
        let now = Instant::now();
        let expiry = Expiry::new(dialed.not_after, self.clock.now(), now);
        if now < expiry.retires {
            return Ok((dialed, expiry));
        }
        let detail = format!("the certificate of the gateway ended at {}", dialed.not_after);
        Err(DialError { reason: Reason::TlsExpired, detail })
    }

    fn dialed(&mut self, dialed: Result<Result<Dialed, DialError>, JoinError>) {
        let dialed = dialed.unwrap_or_else(|e| Err(internal(&format!("the dial's task failed: {e}"))));
        let dialed = dialed.and_then(|dialed| self.valid(dialed));
        self.metrics.dialed(&self.link, dialed.as_ref().map(|(d, _)| d.took).map_err(|e| e.reason));
        match dialed {
            Ok((Dialed { channel, took, epoch, .. }, expiry)) => {
                let counted = Counted { _all: self.counted.clone(), wake: self.pool.0.wake.clone() };
                let leased = Leased {
                    channel: Box::new(channel),
                    id: self.pool.lock().new_id(),
                    epoch,
                    born: Instant::now(),
                    expiry,
                    pool: self.pool.clone(),
                    _counted: counted,
                };
                self.pool.take_in(leased, Some(took));
            }
            Err(e) => {
                tracing::debug!(link = self.link, reason = %e.reason, detail = e.detail, "dial failed");
                let (reason, mut inner) = (e.reason, self.pool.lock());
                inner.last_error = Some(e);
                inner.on(Event::DialFailed(reason), None);
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.over = true;
        inner.waiters.clear();
        // Dropping a connection wakes nobody any more.
        inner.idle.clear();
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
