//! Settings that all sockets share.

use socket2::{SockRef, TcpKeepalive};
use std::{
    io::{self, Read},
    time::Duration,
};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

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
    set(&SockRef::from(tcp), &PLAIN)
}

/// The same for a connection between gateways, whose end is noticed within five seconds.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare_tunnel(tcp: &TcpStream) -> io::Result<()> {
    set(&SockRef::from(tcp), &TUNNEL)
}

/// What [`prepare`] does, for all that `listener` will accept: on Linux they inherit it.
///
/// # Errors
/// When the socket is closed already.
pub fn prepare_listener(listener: &TcpListener) -> io::Result<()> {
    set(&SockRef::from(listener), &PLAIN)
}

fn set(socket: &SockRef<'_>, keep_alive: &KeepAlive) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let KeepAlive { after, every, tries } = *keep_alive;
    let options = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries);
    socket.set_tcp_keepalive(&options)
}

/// Reads what is there. After a read that did not fill `buffer` the socket counts as empty, which saves asking the
/// system once more: whatever comes later is announced again.
///
/// # Errors
/// As the system says; [`io::ErrorKind::WouldBlock`] when nothing is there.
pub fn read_some(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut some = None;
    let all = tcp.try_io(Interest::READABLE, || {
        let socket = SockRef::from(tcp);
        let read = (&*socket).read(buffer)?;
        if read > 0 && read < buffer.len() {
            some = Some(read);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read)
    });
    some.map_or(all, Ok)
}

/// Closes so that the other end gets a reset instead of an orderly end.
pub fn reset(tcp: &TcpStream) {
    // Failing means that the socket is closed already.
    let _ = tcp.set_zero_linger();
}
