//! The load generator: a process of its own inside the caller's namespace, told by JSON what to do.
//!
//! Closed loops send the next request when the last is answered; open loops send at planned times, and latency counts
//! from the planned time, so that a stall is not hidden by sending less.

use crate::{
    backend::Request,
    http,
    latency::{Latency, summary},
    pattern,
};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// A connection must be there after this.
const CONNECT: Duration = Duration::from_secs(30);
/// All connections that a load begins with must be there after this.
const ESTABLISH: Duration = Duration::from_secs(120);
/// So many of them are made at a time.
const AT_ONCE: usize = 16;
/// What a load says when all of them are there.
pub(crate) const READY: &str = "ready";
/// Bytes of a message that is echoed.
const MESSAGE: u64 = 64;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// Carry `bytes` in all over `flows` connections; `pace` as in [`Request::Down`].
    Bulk { flows: u64, bytes: u64, up: bool, pace: u32 },
    /// Closed loop: so many requests in all over keep-alive connections, each of which was used once before. With
    /// `hold`, it says [`READY`] then, begins when there is such a file, and afterwards keeps the connections until the
    /// process is killed: what making and ending them costs is no part of a request.
    Http { connections: u64, requests: u64, hold: Option<PathBuf> },
    /// New connections, `at_once` at a time, each for one small exchange; `bursts` times all at once, `gap` apart.
    Connect { at_once: u64, bursts: u64, gap: Duration },
    /// Closed loop of new connections: so many in all, `at_once` at a time.
    Churn { at_once: u64, count: u64 },
    /// Open loop on echoing connections: `rate` messages a second on each, for `time`.
    Open { connections: u64, rate: f64, time: Duration },
    /// So many connections that were used once and now do nothing, until the process is killed.
    Idle { connections: u64 },
}

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Bytes, requests or connections, as the load counts.
    pub(crate) units: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Of requests, messages or first bytes.
    pub(crate) latency: Option<Latency>,
}

/// Does it, to `address`. Comes with the connections that must stay open until the process is killed.
pub(crate) async fn run(address: SocketAddr, load: Load) -> Result<(Done, Vec<TcpStream>)> {
    let (mut began, mut open) = (Instant::now(), Vec::new());
    let (units, latencies) = match load {
        Load::Bulk { flows, bytes, up, pace } => {
            (bulk(address, flows, bytes / flows, up, pace).await?, vec![])
        }
        Load::Http { connections, requests, hold } => {
            let kept =
                established(address, connections, async |tcp, buffer| http::ask(tcp, buffer).await).await?;
            if let Some(file) = &hold {
                println!("{READY}");
                while !file.exists() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            began = Instant::now();
            let (kept, latencies) = requesting(kept, requests).await?;
            if hold.is_some() {
                open = kept;
            }
            (latencies.len() as u64, latencies)
        }
        Load::Connect { at_once, bursts, gap } => bursting(address, at_once, bursts, gap).await?,
        Load::Churn { at_once, count } => churning(address, at_once, count).await?,
        Load::Open { connections, rate, time } => planned(address, connections, rate, time).await?,
        Load::Idle { connections } => {
            let _kept = established(address, connections, async |tcp, _| echo_once(tcp).await).await?;
            println!("{READY}");
            std::future::pending().await
        }
    };
    Ok((Done { units, seconds: began.elapsed().as_secs_f64(), latency: summary(latencies) }, open))
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let tcp = timeout(CONNECT, TcpStream::connect(address)).await.context("connecting takes too long")??;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Runs `one` so many times side by side and gathers what each answers.
async fn together<T, F>(count: u64, mut one: impl FnMut(u64) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..count {
        tasks.spawn(one(number));
    }
    let mut all = Vec::with_capacity(count as usize);
    while let Some(done) = tasks.join_next().await {
        all.push(done??);
    }
    Ok(all)
}

async fn bulk(address: SocketAddr, flows: u64, bytes: u64, up: bool, pace: u32) -> Result<u64> {
    let one = move |_| async move {
        let mut tcp = connect(address).await?;
        if up {
            tcp.write_all(&Request::Up { bytes }.encode()).await?;
            let mut sent = 0;
            while sent < bytes {
                let piece = pattern::piece(sent, pattern::PIECE.min((bytes - sent) as usize));
                tcp.write_all(piece).await?;
                sent += piece.len() as u64;
            }
            let mut answer = [0];
            tcp.read_exact(&mut answer)
                .await
                .context("the backend did not get all of it, or not in order")?;
            return Ok(sent);
        }
        tcp.write_all(&Request::Down { bytes, pace }.encode()).await?;
        let (mut got, mut buffer) = (0, vec![0; pattern::PIECE]);
        loop {
            let length = tcp.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            ensure!(pattern::is(got, &buffer[..length]), "the payload is damaged at {got}");
            got += length as u64;
        }
        ensure!(got == bytes, "{got} of {bytes} bytes came");
        Ok(got)
    };
    Ok(together(flows, one).await?.iter().sum())
}

/// So many connections, [`AT_ONCE`] at a time, each used once.
async fn established(
    address: SocketAddr,
    connections: u64,
    first: impl AsyncFn(&mut TcpStream, &mut Vec<u8>) -> Result<()>,
) -> Result<Vec<TcpStream>> {
    let one = async || {
        let mut tcp = connect(address).await?;
        first(&mut tcp, &mut Vec::with_capacity(4096)).await?;
        Ok::<_, anyhow::Error>(tcp)
    };
    let all = stream::iter(0..connections).map(|_| one()).buffer_unordered(AT_ONCE);
    timeout(ESTABLISH, all.try_collect()).await.context("connecting takes too long")?
}

async fn echo_once(tcp: &mut TcpStream) -> Result<()> {
    tcp.write_all(&Request::Echo { bytes: MESSAGE }.encode()).await?;
    tcp.write_all(pattern::piece(0, MESSAGE as usize)).await?;
    let mut answer = [0; MESSAGE as usize];
    tcp.read_exact(&mut answer).await.context("a connection was not answered")?;
    Ok(())
}

/// The connections are handed back.
async fn requesting(connections: Vec<TcpStream>, requests: u64) -> Result<(Vec<TcpStream>, Vec<Duration>)> {
    let left = Arc::new(AtomicU64::new(requests));
    let count = connections.len() as u64;
    let mut connections = connections.into_iter();
    let one = |_| {
        let (left, tcp) = (left.clone(), connections.next());
        async move {
            let mut tcp = tcp.context("there are too few connections")?;
            let (mut buffer, mut latencies) = (Vec::with_capacity(4096), Vec::new());
            while take_one(&left) {
                let began = Instant::now();
                http::ask(&mut tcp, &mut buffer).await?;
                latencies.push(began.elapsed());
            }
            Ok((tcp, latencies))
        }
    };
    let (connections, latencies): (Vec<_>, Vec<_>) = together(count, one).await?.into_iter().unzip();
    Ok((connections, latencies.concat()))
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

/// Time from the wish to connect to the answer's first byte; the connection is ended in order.
async fn exchange(address: SocketAddr) -> Result<Duration> {
    let began = Instant::now();
    let mut tcp = connect(address).await?;
    tcp.write_all(
        &[&Request::Echo { bytes: MESSAGE }.encode()[..], pattern::piece(0, MESSAGE as usize)].concat(),
    )
    .await?;
    let mut answer = [0; MESSAGE as usize];
    tcp.read_exact(&mut answer[..1]).await.context("no answer came")?;
    let took = began.elapsed();
    tcp.read_exact(&mut answer[1..]).await?;
    ensure!(pattern::is(0, &answer), "the answer is damaged");
    tcp.shutdown().await?;
    ensure!(tcp.read(&mut answer).await? == 0, "something came after the answer");
    Ok(took)
}

async fn bursting(
    address: SocketAddr,
    at_once: u64,
    bursts: u64,
    gap: Duration,
) -> Result<(u64, Vec<Duration>)> {
    let mut latencies = Vec::new();
    for number in 0..bursts {
        if number > 0 {
            sleep(gap).await;
        }
        latencies.extend(together(at_once, |_| exchange(address)).await?);
    }
    Ok((latencies.len() as u64, latencies))
}

async fn churning(address: SocketAddr, at_once: u64, count: u64) -> Result<(u64, Vec<Duration>)> {
    let left = Arc::new(AtomicU64::new(count));
    let one = |_| {
        let left = left.clone();
        async move {
            let mut latencies = Vec::new();
            while take_one(&left) {
                latencies.push(exchange(address).await?);
            }
            Ok(latencies)
        }
    };
    let latencies = together(at_once, one).await?.concat();
    Ok((latencies.len() as u64, latencies))
}

async fn planned(
    address: SocketAddr,
    connections: u64,
    rate: f64,
    time: Duration,
) -> Result<(u64, Vec<Duration>)> {
    let count = (time.as_secs_f64() * rate) as u32;
    let every = Duration::from_secs_f64(1.0 / rate);
    let one = move |number| async move {
        let mut tcp = connect(address).await?;
        tcp.write_all(&Request::Echo { bytes: MESSAGE }.encode()).await?;
        // Connections are spread over the time between two messages of one.
        let began = Instant::now() + every.mul_f64(number as f64 / connections as f64);
        let mut latencies = Vec::with_capacity(count as usize);
        let mut answer = [0; MESSAGE as usize];
        for n in 0..count {
            let planned = began + every * n;
            precisely(planned).await;
            tcp.write_all(pattern::piece(0, MESSAGE as usize)).await?;
            tcp.read_exact(&mut answer).await?;
            ensure!(pattern::is(0, &answer), "the answer is damaged");
            latencies.push(planned.elapsed());
        }
        Ok(latencies)
    };
    let latencies = together(connections, one).await?.concat();
    Ok((latencies.len() as u64, latencies))
}

/// Waits until `time`, to some 0.1 ms: the runtime's timer has steps of a millisecond, so the rest is slept exactly.
async fn precisely(time: Instant) {
    let step = Duration::from_millis(2);
    if time.saturating_duration_since(Instant::now()) > step {
        sleep_until(time - step).await;
    }
    while Instant::now() < time {
        std::thread::sleep(Duration::from_micros(50).min(time.saturating_duration_since(Instant::now())));
        tokio::task::yield_now().await;
    }
}
