//! Connections to backends that carry request after request.
//!
//! A connection is kept for exactly what it was made for: one pod of one Service, or one Service of a linked cluster on
//! behalf of one caller. So no request can reach another Service, or be taken for another caller's.

use crate::{
    http::body::Question,
    split::{
        connect::{Connector, Upstream},
        owned::Owned,
    },
};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkspan_core::api::{reason::Reason, split::Remote};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// A connection that carried nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(20);
/// For what must not be sent twice only a connection that carried something this lately is used: no server in use
/// closes one sooner, so it does not end just as the request is sent.
const FRESH: Duration = Duration::from_secs(2);
/// Idle HTTP/1 connections kept for one purpose.
const KEPT: usize = 256;
/// Streams on an HTTP/2 connection beyond which another is made, and how many are made for one purpose.
const STREAMS: (usize, usize) = (32, 8);
/// Longest time until a connection that has just carried something can carry the next.
const SETTLE: Duration = Duration::from_millis(20);
/// Receive windows of an HTTP/2 stream and connection.
pub(crate) const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Longest list of fields, in bytes.
pub(crate) const HEADER_LIST: u32 = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// One pod of a Service.
    Pod {
        /// Namespace of the Service.
        namespace: String,
        /// The Service.
        service: String,
        /// The pod.
        address: SocketAddr,
    },
    /// A Service of a linked cluster.
    Remote {
        /// Name of the Link.
        link: String,
        /// The Service there.
        target: String,
        /// Who calls.
        baggage: String,
    },
}

/// Which HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2 with prior knowledge.
    Two,
}

/// Something to send one request with.
pub enum Sender {
    /// The whole connection.
    One(http1::SendRequest<Question>),
    /// A stream of a connection.
    Two(http2::SendRequest<Question>),
}

struct Idle {
    sender: http1::SendRequest<Question>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<Question>,
    /// One more for each stream.
    streams: Arc<()>,
    used: Instant,
}

#[derive(Default)]
struct State {
    one: HashMap<Purpose, Vec<Idle>>,
    two: HashMap<Purpose, Vec<Shared>>,
    dialing: HashMap<Purpose, Arc<tokio::sync::Mutex<()>>>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.one.is_empty() && self.two.is_empty()
    }

    /// Lets go of what has been idle for too long, or ended.
    fn sweep(&mut self, now: Instant) {
        let young = |since: Instant| now.saturating_duration_since(since) < IDLE;
        self.one.retain(|_, idle| {
            idle.retain(|one| young(one.since) && !one.sender.is_closed());
            !idle.is_empty()
        });
        self.two.retain(|_, shared| {
            shared.retain(|one| {
                let used = Arc::strong_count(&one.streams) > 1 || young(one.used);
                used && !one.sender.is_closed()
            });
            !shared.is_empty()
        });
        self.dialing.retain(|_, dialing| Arc::strong_count(dialing) > 1);
    }
}

/// All connections.
#[derive(Clone)]
pub struct Upstreams {
    state: Arc<Mutex<State>>,
    filled: Arc<Notify>,
    connector: Connector,
    tasks: Owned,
}

/// A connection, or a stream of one, in use.
pub struct Checkout {
    upstreams: Upstreams,
    purpose: Purpose,
    sender: Sender,
    /// Whether it carried something before.
    pub reused: bool,
    /// Counts the stream.
    _stream: Option<Arc<()>>,
}

impl Checkout {
    /// What to send with.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The answer was taken in whole: the connection can carry the next request.
    pub fn give_back(self) {
        let Sender::One(sender) = self.sender else { return };
        if sender.is_closed() {
            return;
        }
        let mut state = self.upstreams.lock();
        let idle = state.one.entry(self.purpose).or_default();
        if idle.len() < KEPT {
            idle.push(Idle { sender, since: Instant::now() });
        }
        drop(state);
        self.upstreams.filled.notify_one();
    }
}

impl Upstreams {
    /// No connections yet; they are made by `connector` and looked after in `tasks`.
    pub fn new(connector: Connector, tasks: Owned) -> Self {
        Self { state: Arc::default(), filled: Arc::default(), connector, tasks }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what is idle, for ever; sleeps while there is nothing.
    pub async fn sweep(self) {
        loop {
            self.filled.notified().await;
            while !self.lock().is_empty() {
                sleep(IDLE / 4).await;
                self.lock().sweep(Instant::now());
            }
        }
    }

    /// Something to send a request for `purpose` with: kept, or made now. `repeatable`: the request may be sent twice.
    ///
    /// # Errors
    /// When the backend is not reached.
    pub async fn checkout(
        &self,
        purpose: &Purpose,
        version: Version,
        repeatable: bool,
    ) -> Result<Checkout, (Reason, String)> {
        match version {
            Version::One => match self.kept(purpose, if repeatable { IDLE } else { FRESH }).await {
                Some(sender) => Ok(self.lend(purpose, Sender::One(sender), None, true)),
                None => self.fresh(purpose, None).await,
            },
            Version::Two => self.stream(purpose).await,
        }
    }

    fn lend(&self, purpose: &Purpose, sender: Sender, stream: Option<Arc<()>>, reused: bool) -> Checkout {
        Checkout { upstreams: self.clone(), purpose: purpose.clone(), sender, reused, _stream: stream }
    }

    async fn kept(&self, purpose: &Purpose, youth: Duration) -> Option<http1::SendRequest<Question>> {
        loop {
            let mut idle = {
                let mut state = self.lock();
                let kept = state.one.get_mut(purpose)?;
                let idle = kept.pop();
                if kept.is_empty() {
                    state.one.remove(purpose);
                }
                idle?
            };
            let young = idle.since.elapsed() < youth;
            let ready = young
                && (idle.sender.is_ready()
                    || matches!(timeout(SETTLE, idle.sender.ready()).await, Ok(Ok(()))));
            if ready {
                return Some(idle.sender);
            }
        }
    }

    /// A new HTTP/1 connection: `upstream`, or one that is made now.
    ///
    /// # Errors
    /// When the backend is not reached.
    pub async fn fresh(
        &self,
        purpose: &Purpose,
        upstream: Option<Upstream>,
    ) -> Result<Checkout, (Reason, String)> {
        let io = match upstream {
            Some(upstream) => upstream,
            None => self.connect(purpose).await?,
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(|e| (Reason::Internal, e.to_string()))?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a backend's connection ended");
            }
        });
        Ok(self.lend(purpose, Sender::One(sender), None, false))
    }

    async fn stream(&self, purpose: &Purpose) -> Result<Checkout, (Reason, String)> {
        if let Some(found) = self.shared(purpose) {
            return Ok(found);
        }
        // One is made at a time; those who wait find it.
        let dialing = self.lock().dialing.entry(purpose.clone()).or_default().clone();
        let _one = dialing.lock().await;
        if let Some(found) = self.shared(purpose) {
            return Ok(found);
        }
        let io = self.connect(purpose).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(HEADER_LIST)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| (Reason::Internal, e.to_string()))?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend's connection ended");
            }
        });
        let streams = Arc::new(());
        let stream = streams.clone();
        let shared = Shared { sender: sender.clone(), streams, used: Instant::now() };
        self.lock().two.entry(purpose.clone()).or_default().push(shared);
        self.filled.notify_one();
        Ok(self.lend(purpose, Sender::Two(sender), Some(stream), false))
    }

    fn shared(&self, purpose: &Purpose) -> Option<Checkout> {
        let mut state = self.lock();
        let shared = state.two.get_mut(purpose)?;
        shared.retain(|one| !one.sender.is_closed());
        let many = shared.len() >= STREAMS.1;
        let least = shared.iter_mut().min_by_key(|one| Arc::strong_count(&one.streams))?;
        if Arc::strong_count(&least.streams) > STREAMS.0 && !many {
            return None;
        }
        least.used = Instant::now();
        let (sender, stream) = (least.sender.clone(), least.streams.clone());
        drop(state);
        Some(self.lend(purpose, Sender::Two(sender), Some(stream), true))
    }

    async fn connect(&self, purpose: &Purpose) -> Result<Upstream, (Reason, String)> {
        match purpose {
            Purpose::Pod { address, .. } => self.connector.pod(vec![*address]).await,
            Purpose::Remote { link, target, baggage } => {
                let target = target.parse().map_err(|e| (Reason::Internal, format!("{e}")))?;
                self.connector.remote(&Remote { link: link.clone(), target }, baggage).await
            }
        }
    }
}
