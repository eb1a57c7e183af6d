//! A client that asks at a steady rate, whatever the answers: HTTP/1.1, over connections that it keeps or makes anew
//! for each request, or over long-lived ones that it watches.

use super::report::{Cut, Failure, Line, Second, TOLD_PER_SECOND};
use anyhow::{Context, Result, bail, ensure};
use linkspan_core::process::{clock::Clock, resolver::Names};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout},
};

/// Longest time that a connection, or an answer on it, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A kept connection is given up at this age, well before the shortest drain of a gateway.
const MAX_AGE: Duration = Duration::from_secs(20);

/// First of the ports that connections come from; all above are used one after the other. The kernel's own choice is back
/// at a port within a minute, and where a connection from it was cut off, its node's connection tracking sends the next one
/// the same dead way for two minutes. Any client of any Service can meet that; here it would hide what is measured.
const FIRST_PORT: u16 = 1024;

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Many requests on each, until it is 20 s old.
    KeepAlive,
    /// One request on each.
    PerRequest,
    /// One after the other for as long as the other side lets it live.
    Hold,
}

/// What a client does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name under which the server counts; it is told with the time of the start.
    pub name: String,
    /// `host:port`.
    pub target: String,
    /// How connections are used.
    pub mode: Mode,
    /// Requests a second, in all.
    pub rate: u32,
    /// Requests that may be under way at once.
    pub workers: u32,
}

/// Asks until SIGTERM, and tells on standard output.
///
/// # Errors
/// When the target has no address, or nobody reads the output.
pub async fn run(mut plan: Plan, clock: Clock) -> Result<()> {
    ensure!(plan.rate > 0 && plan.workers > 0, "rate and workers must be at least 1");
    let target = address(&plan.target).await?;
    plan.name = format!("{}-{}", plan.name, clock.now().as_millisecond());
    tell(&Line::CountedAs(plan.name.clone()));
    let tally = Arc::new(Tally { clock, now: Mutex::default() });
    let ports = Arc::new(AtomicU16::new(FIRST_PORT));
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let period = Duration::from_secs(1) * plan.workers / plan.rate;
    for number in 0..plan.workers {
        // Spread over the period, so that not all ask at once.
        let first = Instant::now() + period * number / plan.workers;
        let (plan, tally, ports) = (plan.clone(), tally.clone(), ports.clone());
        let worker = Worker { plan, target, tally, ports, kept: None };
        tasks.spawn(worker.run(first, period, stopped.clone()));
    }
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = seconds.tick() => tally.second(),
            _ = terminate.recv() => drop(stop.send_replace(true)),
            ended = tasks.join_next() => match ended {
                Some(Ok(())) if *stopped.borrow() => {}
                Some(ended) => bail!("a worker ended: {ended:?}"),
                None => break,
            },
        }
    }
    tally.second();
    Ok(())
}

/// The address behind `host:port`. Looked up once: what is measured is the way, not the cluster's DNS.
async fn address(target: &str) -> Result<SocketAddr> {
    let (host, port) = target.rsplit_once(':').with_context(|| format!("{target:?} is not <host>:<port>"))?;
    let port = port.parse().with_context(|| format!("{port:?} is no port"))?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok((ip, port).into());
    }
    let names = Names::system().map_err(anyhow::Error::msg)?;
    loop {
        match names.lookup(host).await {
            Ok(answer) => return Ok((answer.addresses[0], port).into()),
            Err(error) => eprintln!("{error}; asking again"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What happened in the second that runs.
struct Tally {
    clock: Clock,
    now: Mutex<(Second, u64)>,
}

impl Tally {
    fn millis(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn second(&self) {
        let (mut second, _) = std::mem::take(&mut *self.now.lock().unwrap_or_else(PoisonError::into_inner));
        second.at = self.millis();
        tell(&Line::Second(second));
    }

    fn ok(&self, took: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.0.ok += 1;
        now.0.slowest = now.0.slowest.max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    fn failed(&self, failure: Failure) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.0.failed += 1;
        now.1 += 1;
        if now.1 <= TOLD_PER_SECOND {
            drop(now);
            tell(&Line::Failure(failure));
        }
    }
}

fn tell(line: &Line) {
    println!("{}", serde_json::to_string(line).unwrap_or_else(|e| e.to_string()));
}

/// One connection that is kept.
struct Kept {
    stream: TcpStream,
    since: Instant,
}

struct Worker {
    plan: Plan,
    target: SocketAddr,
    tally: Arc<Tally>,
    ports: Arc<AtomicU16>,
    kept: Option<Kept>,
}

impl Worker {
    async fn run(mut self, first: Instant, period: Duration, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => return,
            }
            let (began, start) = (self.tally.millis(), Instant::now());
            let reused = self.usable();
            match self.request().await {
                Ok(()) => self.tally.ok(start.elapsed()),
                Err((phase, error)) => {
                    let took = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
                    let error = format!("{error:#}");
                    self.ended(&error);
                    self.tally.failed(Failure { began, took, phase: phase.to_owned(), reused, error });
                }
            }
        }
    }

    /// Whether there is a kept connection that may carry another request; one that is not any more is dropped.
    fn usable(&mut self) -> bool {
        let Some(kept) = &self.kept else { return false };
        let old = self.plan.mode == Mode::KeepAlive && kept.since.elapsed() >= MAX_AGE;
        // Nothing is expected: whatever can be read is its end.
        let mut byte = [0];
        let end = match kept.stream.try_read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => Some(error.to_string()),
            Ok(0) => Some("closed".to_owned()),
            Ok(_) => Some("bytes that nobody asked for".to_owned()),
        };
        match end {
            Some(error) => self.ended(&error),
            None if old => self.kept = None,
            None => return true,
        }
        false
    }

    /// The kept connection is no more, for `error`.
    fn ended(&mut self, error: &str) {
        if let Some(kept) = self.kept.take()
            && self.plan.mode == Mode::Hold
        {
            let age = i64::try_from(kept.since.elapsed().as_millis()).unwrap_or(i64::MAX);
            tell(&Line::Cut(Cut { at: self.tally.millis(), age, error: error.to_owned() }));
        }
    }

    async fn request(&mut self) -> Result<(), (&'static str, anyhow::Error)> {
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => Kept {
                stream: connect(self.target, &self.ports).await.map_err(|e| ("connect", e))?,
                since: Instant::now(),
            },
        };
        let close = self.plan.mode == Mode::PerRequest;
        let outcome = exchange(&mut kept.stream, &self.plan.name, close).await;
        let ended = matches!(&outcome, Ok(true));
        if !close && (outcome.is_err() || !ended) {
            // After a failure it is kept until its end is told.
            self.kept = Some(kept);
        }
        outcome.map(|_| ())
    }
}

async fn connect(target: SocketAddr, ports: &AtomicU16) -> Result<TcpStream> {
    let socket = socket(target, ports)?;
    let stream = timeout(PATIENCE, socket.connect(target)).await.context("no connection in time")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A socket with the next free port.
fn socket(target: SocketAddr, ports: &AtomicU16) -> Result<TcpSocket> {
    for _ in FIRST_PORT..=u16::MAX {
        let port = ports.fetch_add(1, Ordering::Relaxed);
        if port < FIRST_PORT {
            // It was the last one; those below are not ours to use.
            ports.fetch_max(FIRST_PORT, Ordering::Relaxed);
            continue;
        }
        let (socket, own): (_, IpAddr) = match target {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
        };
        match socket.bind((own, port).into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("all ports are in use")
}

/// One request and its whole answer. Whether the server wants the connection to end.
async fn exchange(
    stream: &mut TcpStream,
    name: &str,
    close: bool,
) -> Result<bool, (&'static str, anyhow::Error)> {
    let connection = if close { "close" } else { "keep-alive" };
    let request = format!("GET /count/{name} HTTP/1.1\r\nHost: load\r\nConnection: {connection}\r\n\r\n");
    let sent = timeout(PATIENCE, stream.write_all(request.as_bytes())).await;
    sent.context("not sent in time").and_then(|r| Ok(r?)).map_err(|e| ("send", e))?;
    let mut read = Vec::with_capacity(512);
    let head = loop {
        if let Some(end) = find(&read, b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut read).await.map_err(|e| ("head", e))?;
    };
    let (length, last) = parse(&read[..head]).map_err(|e| ("head", e))?;
    while read.len() < head + length {
        more(stream, &mut read).await.map_err(|e| ("body", e))?;
    }
    Ok(last)
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<()> {
    let count = timeout(PATIENCE, stream.read_buf(read)).await.context("no answer in time")??;
    ensure!(count > 0, "closed after {} bytes of the answer", read.len());
    Ok(())
}

/// Length of the body, and whether the connection ends with it.
fn parse(head: &[u8]) -> Result<(usize, bool)> {
    let head = std::str::from_utf8(head).context("the head is no text")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered {:?}", head.lines().next().unwrap_or_default());
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.context("an answer without a length")?.trim().parse()?;
    Ok((length, lower.contains("\r\nconnection: close\r\n")))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
