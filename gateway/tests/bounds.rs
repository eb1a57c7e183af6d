//! What gateways hold of a flow whose reader is slow: what went in, less what came out and what lies in the system's
//! own buffers.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tcp.rs"]
mod tcp;

use pair::{Gateway, Pair};
use std::{fs, net::SocketAddr, time::Duration};
use tcp::{admin, metric, read_exact, soon};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};

/// What one gateway may hold of one flow in one direction.
const BOUND: i64 = 256 * 1024;
/// Time between two looks, and looks for which nothing must have moved.
const LOOK: Duration = Duration::from_millis(50);
const STILL: usize = 10;

/// Bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes {
    /// Read from whoever sends.
    taken: i64,
    /// Written to whoever receives.
    given: i64,
    /// In the system's buffers between the gateways, as TLS records: a little more than what they hold.
    under_way: i64,
}

impl Bytes {
    /// What both gateways hold. TLS and frames add less than a hundredth to what is under way.
    fn held(self) -> i64 {
        self.taken - self.given - (self.under_way - self.under_way / 100)
    }
}

/// Which end does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Server,
    Client,
}

async fn counter(gateway: &Gateway, name: &str) -> i64 {
    let metrics = admin(gateway, "/metrics").await;
    let line =
        metrics.lines().find(|line| line.starts_with(name) && line.contains("service=\"api\"")).unwrap();
    metric(line, line.rsplit_once(' ').unwrap().0).unwrap() as i64
}

/// Bytes that the system holds of connections from and to `address`.
fn under_way(address: SocketAddr) -> i64 {
    let SocketAddr::V4(v4) = address else { panic!("{address} is not IPv4") };
    let shown = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row.len() > 4 && (row[1] == shown || row[2] == shown) && row[3] == "01");
    let number = |text: &str| i64::from_str_radix(text, 16).unwrap();
    ours.map(|row| row[4].split_once(':').map(|(tx, rx)| number(tx) + number(rx)).unwrap()).sum()
}

async fn look(pair: &Pair, slow: Slow) -> Bytes {
    // Read is what the calling side sent, written what it receives; on both gateways.
    let (from, to, name) = match slow {
        Slow::Server => (&pair.east, &pair.west, "tcp_read_bytes_total"),
        Slow::Client => (&pair.west, &pair.east, "tcp_write_bytes_total"),
    };
    let given = counter(to, name).await;
    Bytes { taken: counter(from, name).await, given, under_way: under_way(pair.west.tunnel) }
}

/// What there is once nothing moves any more.
async fn at_rest(pair: &Pair, slow: Slow) -> Bytes {
    let (mut last, mut still, began) = (look(pair, slow).await, 0, Instant::now());
    while still < STILL {
        sleep(LOOK).await;
        let now = look(pair, slow).await;
        still = if now == last { still + 1 } else { 0 };
        last = now;
        assert!(began.elapsed() < pair::DEADLINE, "it does not come to rest: {last:?}");
    }
    last
}

async fn little_is_held(slow: Slow) {
    let pair = Pair::start().await;
    let (client, server) = soon(pair.flow()).await;
    let (mut sender, mut reader): (TcpStream, TcpStream) = match slow {
        Slow::Server => (client, server),
        Slow::Client => (server, client),
    };
    let flood = tokio::spawn(async move {
        let bytes = vec![7; 256 * 1024];
        while sender.write_all(&bytes).await.is_ok() {}
    });
    // At rest more than once: buffers grow while some is read.
    for some in [1, 300_000, 5_000_000, 20_000_000] {
        read_exact(&mut reader, some).await;
        let bytes = at_rest(&pair, slow).await;
        println!("{slow:?} is slow: {} bytes held, {bytes:?}", bytes.held());
        assert!(bytes.taken > bytes.given, "{bytes:?}");
        assert!(bytes.held() <= 2 * BOUND, "two gateways hold {} bytes: {bytes:?}", bytes.held());
    }
    reader.set_zero_linger().unwrap();
    drop(reader);
    soon(flood).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_held_for_a_server_that_does_not_read() {
    little_is_held(Slow::Server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_held_for_a_client_that_does_not_read() {
    little_is_held(Slow::Client).await;
}
