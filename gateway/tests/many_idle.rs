//! Ten thousand idle flows, each side of each link a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/process.rs"]
mod process;
#[path = "support/site.rs"]
mod site;
#[path = "support/mod.rs"]
mod support;

use linkspan_tests::needs::skip;
use process::{DEADLINE, Process, exchange, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use site::{Site, called, calling};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// Clients' connections. Each crosses two links, so that there are twice as many flows.
const CONNECTIONS: usize = 5000;
/// Connections that are made at the same time.
const AT_ONCE: usize = 20;

/// Lets this process have `wanted` open files, where it may. How many it may have then.
fn allow_open_files(wanted: u64) -> u64 {
    let before = getrlimit(Resource::Nofile);
    let more = |limit: Option<u64>| limit.map(|limit| limit.max(wanted));
    // The hard limit is for root to raise; others may go as far as it.
    for maximum in [more(before.maximum), before.maximum] {
        let current = maximum.map(|maximum| wanted.min(maximum)).or(Some(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok() {
            return current.unwrap_or(wanted);
        }
    }
    before.current.unwrap_or(wanted)
}

/// A link: the called and the calling process, and their folders.
struct Link {
    called: Process,
    calling: Process,
    _sites: [Site; 2],
}

impl Link {
    /// One whose called side serves `backend`.
    fn to(backend: SocketAddr) -> Self {
        let (east, west) = (Site::new("east"), Site::new("west"));
        east.write_client(&west.ca);
        let called = Process::start(&west.files, &west.host, &called(backend));
        let calling = Process::start(&east.files, &east.host, &calling(&west.host));
        Self { called, calling, _sites: [east, west] }
    }

    fn entry(&self) -> SocketAddr {
        self.calling.at(10_007)
    }
}

/// Sends back whatever comes.
async fn echo(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (mut tcp, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let (mut read, mut write) = tcp.split();
            tokio::io::copy(&mut read, &mut write).await
        });
    }
}

async fn say(tcp: &mut TcpStream) {
    tcp.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    timeout(DEADLINE, tcp.read_exact(&mut heard)).await.expect("an answer").unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_flows_stay_and_work_when_they_are_needed() {
    // Both ends of each connection are in this process, and two ends of each flow in each gateway.
    let needed = 2 * CONNECTIONS as u64 + 2000;
    let allowed = allow_open_files(needed);
    if allowed < needed {
        let why =
            format!("{needed} open files are needed, {allowed} allowed: raise the hard limit (ulimit -Hn)");
        return skip("ten_thousand_idle_flows_stay_and_work_when_they_are_needed", &why);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = Link::to(listener.local_addr().unwrap());
    tokio::spawn(echo(listener));
    let first = Link::to(second.entry());
    let entry = first.entry();
    tokio::task::spawn_blocking(move || until(|| exchange(entry))).await.unwrap();
    let gateways = [&first.calling, &first.called, &second.calling, &second.called];
    let memory = || gateways.iter().map(|g| g.memory()).collect::<Vec<_>>();
    let (before, began) = (memory(), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        callers.spawn(async move {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS / AT_ONCE {
                let mut tcp =
                    timeout(DEADLINE, TcpStream::connect(entry)).await.expect("a connection").unwrap();
                say(&mut tcp).await;
                connections.push(tcp);
            }
            connections
        });
    }
    let mut connections: Vec<TcpStream> = callers.join_all().await.into_iter().flatten().collect();
    println!(
        "{} idle flows: {:?}, KiB of each gateway: {before:?}, then {:?}",
        2 * CONNECTIONS,
        began.elapsed(),
        memory()
    );
    let began = Instant::now();
    for tcp in &mut connections {
        say(tcp).await;
    }
    println!("all used again: {:?}", began.elapsed());
    assert_eq!(connections.len(), CONNECTIONS);
}
