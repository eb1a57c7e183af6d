//! Settings that all sockets share.

use socket2::{SockRef, TcpKeepalive};
use std::{io, time::Duration};
use tokio::net::TcpStream;

/// Silence after which the system asks whether the other end is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
/// Time between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// Unanswered questions until the connection counts as broken.
const KEEPALIVE_TRIES: u32 = 4;

/// Small writes leave at once, and a vanished peer is noticed.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

/// Closes so that the other end gets a reset instead of an orderly end.
pub fn reset(tcp: &TcpStream) {
    // Failing means that the socket is closed already.
    let _ = tcp.set_zero_linger();
}
