//! A TCP relay between a client and a server that a test can pause, slow, cut and close.
//!
//! It runs on a thread of its own, so that a test that blocks, or a runtime that ends, does not disturb it.

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long a changed listener may take to show.
const SHOWS: Duration = Duration::from_secs(10);

/// What the relay does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    target: SocketAddr,
    paused: bool,
    refusing: bool,
    delay: Duration,
    /// Number of cuts so far; a connection made under a lower number ends.
    cuts: u64,
}

/// The relay. Dropping it ends its listener and all its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    listening: watch::Receiver<bool>,
    _background: Background,
}

impl Relay {
    /// Listens on `listen` (port 0: one that is free) and carries every connection to `target`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let background = Background::new()?;
        let bound = std::net::TcpListener::bind(listen).with_context(|| format!("cannot bind {listen}"))?;
        bound.set_nonblocking(true)?;
        let address = bound.local_addr()?;
        let state = State { target, paused: false, refusing: false, delay: Duration::ZERO, cuts: 0 };
        let (state, seen) = watch::channel(state);
        let (shows, listening) = watch::channel(true);
        background.run(async move {
            match TcpListener::from_std(bound) {
                Ok(listener) => serve(listener, address, seen, shows).await,
                Err(error) => eprintln!("the relay on {address} cannot listen: {error}"),
            }
        });
        Ok(Self { address, state, listening, _background: background })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Carries new connections to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|s| s.target = target);
    }

    /// Holds all bytes back, and what connects from now on; nothing is closed.
    pub fn pause(&self) {
        self.state.send_modify(|s| s.paused = true);
    }

    /// Lets everything held back go on.
    pub fn resume(&self) {
        self.state.send_modify(|s| s.paused = false);
    }

    /// Delays all bytes by `delay` in each direction, keeping their order and pace.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|s| s.delay = delay);
    }

    /// Ends all connections there are; new ones are carried.
    pub fn cut(&self) {
        self.state.send_modify(|s| s.cuts += 1);
    }

    /// Ends all connections and refuses new ones.
    ///
    /// # Errors
    /// When the relay's thread does not obey.
    pub async fn refuse(&self) -> Result<()> {
        self.state.send_modify(|s| (s.refusing, s.cuts) = (true, s.cuts + 1));
        self.listens(false).await
    }

    /// Takes new connections again, on the same port.
    ///
    /// # Errors
    /// When another process has taken the port.
    pub async fn accept(&self) -> Result<()> {
        self.state.send_modify(|s| s.refusing = false);
        self.listens(true).await
    }

    async fn listens(&self, wanted: bool) -> Result<()> {
        let mut listening = self.listening.clone();
        let waited = timeout(SHOWS, listening.wait_for(|l| *l == wanted)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => bail!("the relay on {} cannot change to listening: {wanted}", self.address),
        }
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    mut state: watch::Receiver<State>,
    shows: watch::Sender<bool>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let refusing = state.borrow_and_update().refusing;
        match (refusing, listener.is_some()) {
            (true, true) => listener = None,
            // Another process may hold the port for a moment; then the next round tries again.
            (false, false) => listener = TcpListener::bind(address).await.ok(),
            _ => {}
        }
        shows.send_if_modified(|l| std::mem::replace(l, listener.is_some()) != listener.is_some());
        tokio::select! {
            accepted = accept(listener.as_ref()) => {
                if let Some(stream) = accepted {
                    connections.spawn(carry(stream, state.clone()));
                }
            }
            changed = state.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => {
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn carry(mut client: TcpStream, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let forth_state = state.clone();
    let back_state = state.clone();
    let both = async {
        let mut gate = forth_state.clone();
        gate.wait_for(|s| !s.paused).await.ok()?;
        let target = gate.borrow().target;
        let mut server = TcpStream::connect(target).await.ok()?;
        client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok()?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        // One direction may end before the other; an error in either ends both.
        tokio::try_join!(pump(from_client, to_server, forth_state), pump(from_server, to_client, back_state))
            .ok()
    };
    tokio::select! {
        _ = both => {}
        _ = state.wait_for(|s| s.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(64);
    let delay = state.clone();
    let read = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(16 * 1024);
            let end = from.read_buf(&mut buffer).await? == 0;
            let at = Instant::now() + delay.borrow().delay;
            // The writer is gone only when it has failed, which ends this direction too.
            if queue.send((at, buffer.split().freeze())).await.is_err() || end {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            state.wait_for(|s| !s.paused).await.map_err(std::io::Error::other)?;
            match bytes.is_empty() {
                true => to.shutdown().await?,
                false => to.write_all(&bytes).await?,
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// A runtime with one thread of its own, ended without waiting when dropped.
#[derive(Debug)]
pub(crate) struct Background(Option<Runtime>);

impl Background {
    pub(crate) fn new() -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("harness").enable_all().build();
        Ok(Self(Some(runtime.context("cannot start a thread")?)))
    }

    /// Runs `task` until the runtime is dropped.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
