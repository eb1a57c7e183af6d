//! Settings that all sockets share.

use socket2::{SockRef, TcpKeepalive};
use std::{io, time::Duration};
use tokio::net::TcpStream;

/// How often the system asks a silent end whether it is still there.
struct KeepAlive {
    /// Silence until the first question.
    after: Duration,
    /// Time between two questions.
    every: Duration,
    /// Unanswered questions until the connection counts as broken.
    tries: u32,
}

/// For connections within a cluster.
const PLAIN: KeepAlive =
    KeepAlive { after: Duration::from_secs(20), every: Duration::from_secs(5), tries: 4 };
/// For connections between clusters: gone after four seconds, and not for one or two lost packets. The system's
/// shortest step is a second.
const TUNNEL: KeepAlive =
    KeepAlive { after: Duration::from_secs(1), every: Duration::from_secs(1), tries: 3 };

/// Small writes leave at once, and a vanished peer is noticed.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare(tcp: &TcpStream) -> io::Result<()> {
    set(tcp, &PLAIN)
}

/// The same for a connection between gateways, whose end is noticed within five seconds.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare_tunnel(tcp: &TcpStream) -> io::Result<()> {
    set(tcp, &TUNNEL)
}

fn set(tcp: &TcpStream, keep_alive: &KeepAlive) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let KeepAlive { after, every, tries } = *keep_alive;
    let options = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries);
    SockRef::from(tcp).set_tcp_keepalive(&options)
}

/// Closes so that the other end gets a reset instead of an orderly end.
pub fn reset(tcp: &TcpStream) {
    // Failing means that the socket is closed already.
    let _ = tcp.set_zero_linger();
}
