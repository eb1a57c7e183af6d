//! Makes one connection to a gateway: TCP, TLS, and a first PING, so that a connection counts only once the other
//! side has accepted our certificate.

use crate::{
    mtls::{peer, verify::reason_of},
    tunnel::{channel::Channel, handshake, peer_state::PeerState, socket},
    wire::{Event, Frame},
};
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use linkspan_core::api::reason::Reason;
use rustls::ClientConfig;
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

/// Longest time one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time until the next address is tried beside one that has not answered (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);
/// Longest time the handshake and the first PING may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no connection came about: the word for programs, and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct DialError {
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub detail: String,
}

/// A connection that can be used.
pub struct Dialed {
    /// The connection.
    pub channel: Channel,
    /// How long it took to come about.
    pub took: Duration,
    /// [`PeerState::epoch`] it was made with.
    pub epoch: u64,
    /// Until when the certificate of the other gateway is valid.
    pub not_after: Timestamp,
}

/// Makes a connection to one of the addresses of `peer`; `first` (counted round) has the first try. An address that
/// does not answer at once is raced by the next one, of the other family where there is one (RFC 8305).
///
/// # Errors
/// What went wrong where most was achieved.
pub async fn dial(peer: &PeerState, first: usize) -> Result<Dialed, DialError> {
    if let Some((reason, detail)) = peer.blocked() {
        return Err(DialError { reason, detail });
    }
    let began = Instant::now();
    let mut error = DialError { reason: Reason::NoCredentials, detail: "no client certificate".to_owned() };
    let Some(tls) = &peer.tls else { return Err(error) };
    let identity = peer.identity.to_string();
    let mut left = VecDeque::from(order(&peer.addresses, first));
    let mut achieved = 0;
    loop {
        let step = match race(&mut left).await {
            Ok(None) => return Err(error),
            Ok(Some((tcp, address))) => {
                secure(tcp, address, tls.clone(), &identity).await.map_err(|e| (2, e))
            }
            Err(e) => Err((usize::from(e.reason == Reason::Refused), e)),
        };
        match step {
            Ok((channel, not_after)) => {
                return Ok(Dialed { channel, took: began.elapsed(), epoch: peer.epoch, not_after });
            }
            Err((far, e)) if far >= achieved => (achieved, error) = (far, e),
            Err(_) => {}
        }
    }
}

/// The addresses in the order in which they are tried: beginning with number `first`, families in turns.
fn order(addresses: &[SocketAddr], first: usize) -> Vec<SocketAddr> {
    let (before, from) = addresses.split_at(first % addresses.len().max(1));
    let turned = || from.iter().chain(before).copied();
    let Some(family) = turned().next().map(|address| address.is_ipv4()) else { return Vec::new() };
    let mut others = turned().filter(|address| address.is_ipv4() != family);
    let same = turned().filter(|address| address.is_ipv4() == family);
    let mut ordered: Vec<_> = same.flat_map(|one| [Some(one), others.next()]).flatten().collect();
    ordered.extend(others);
    ordered
}

/// Connects to the first address in `left` that answers, and leaves there what was not decided; `None` when there are
/// no more.
async fn race(left: &mut VecDeque<SocketAddr>) -> Result<Option<(TcpStream, SocketAddr)>, DialError> {
    let Some(first) = left.pop_front() else { return Ok(None) };
    let (mut trying, mut attempts) = (vec![first], FuturesUnordered::from_iter([connect(first)]));
    let mut next_at = Instant::now() + STAGGER;
    let (address, result) = loop {
        tokio::select! {
            Some(done) = attempts.next() => break done,
            () = sleep_until(next_at), if !left.is_empty() => {
                next_at += STAGGER;
                if let Some(next) = left.pop_front() {
                    trying.push(next);
                    attempts.push(connect(next));
                }
            }
        }
    };
    for other in trying.into_iter().rev().filter(|other| *other != address) {
        left.push_front(other);
    }
    result.map(|tcp| Some((tcp, address)))
}

async fn connect(address: SocketAddr) -> (SocketAddr, Result<TcpStream, DialError>) {
    let result = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(e)) => Err(failed(address, &e)),
        Err(_) => Err(slow(address, "connecting")),
    };
    (address, result)
}

fn slow(address: SocketAddr, what: &str) -> DialError {
    DialError { reason: Reason::Timeout, detail: format!("{address}: {what} took too long") }
}

fn failed(address: SocketAddr, error: &io::Error) -> DialError {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<DialError>());
    let reason = told.map_or_else(|| reason_of(error), |told| told.reason);
    DialError { reason, detail: format!("{address}: {error}") }
}

/// TLS and the first PING over a connection that is there.
async fn secure(
    tcp: TcpStream,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    identity: &str,
) -> Result<(Channel, Timestamp), DialError> {
    let handshake = async {
        socket::prepare_tunnel(&tcp)?;
        let mut channel = handshake::connect(tcp, tls, address).await?;
        let leaf = channel.peer_certificates().first();
        let not_after =
            peer::read(leaf.map(AsRef::as_ref).unwrap_or_default()).map_err(io::Error::other)?.not_after;
        ping(&mut channel, 0, identity).await?;
        Ok::<_, io::Error>((channel, not_after))
    };
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(done) => done.map_err(|e| failed(address, &e)),
        Err(_) => Err(slow(address, "the handshake")),
    }
}

/// Asks the gateway at the other end whether it is there and who it is.
///
/// # Errors
/// When the connection breaks, when the caller is refused, or when another than `identity` answers.
pub async fn ping(channel: &mut Channel, token: u64, identity: &str) -> io::Result<()> {
    channel.queue(&Frame::Ping { token })?;
    channel.flush().await?;
    loop {
        match channel.event().await? {
            Event::Frame(Frame::Pong { token: answered, identity: found }) if answered == token => {
                if found == identity {
                    return Ok(());
                }
                let detail = format!("the gateway is {found}, expected is {identity}");
                return Err(io::Error::other(DialError { reason: Reason::WrongCluster, detail }));
            }
            Event::Frame(Frame::Refused { reason, .. }) => {
                let detail = format!("the gateway refuses this caller ({reason}): {}", reason.advice());
                return Err(io::Error::other(DialError { reason, detail }));
            }
            Event::Frame(Frame::GoAway) => {
                let detail = "the gateway is shutting down".to_owned();
                return Err(io::Error::other(DialError { reason: Reason::Draining, detail }));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(families: &[bool]) -> Vec<SocketAddr> {
        let address = |(n, v6): (usize, &bool)| {
            let ip = if *v6 { format!("[fd00::{n}]:1") } else { format!("10.0.0.{n}:1") };
            ip.parse().unwrap()
        };
        families.iter().enumerate().map(address).collect()
    }

    proptest! {
        #[test]
        fn all_addresses_are_tried_once_and_families_take_turns(
            families in prop::collection::vec(any::<bool>(), 0..8), first in 0usize..20
        ) {
            let all = addresses(&families);
            let ordered = order(&all, first);
            if let Some(begins) = ordered.first() {
                prop_assert_eq!(*begins, all[first % all.len()]);
            }
            let sixes = families.iter().filter(|v6| **v6).count();
            for (i, pair) in ordered.windows(2).enumerate().take((2 * sixes.min(families.len() - sixes)).saturating_sub(1)) {
                prop_assert!(pair[0].is_ipv4() != pair[1].is_ipv4(), "{} of {:?}", i, ordered);
            }
            let mut sorted = ordered;
            sorted.sort();
            let mut expected = all;
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_raced_by_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // A queue that is full does not answer: neither a refusal nor a connection.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(tcp)) = timeout(Duration::from_millis(300), TcpStream::connect(silent_address)).await
        {
            queued.push(tcp);
        }
        let mut left = VecDeque::from([silent_address, good]);
        let began = Instant::now();
        let (_, address) = race(&mut left).await.unwrap().unwrap();
        assert_eq!(address, good);
        assert!(began.elapsed() < CONNECT_TIMEOUT, "{:?}", began.elapsed());
        assert_eq!(left, [silent_address], "what was not decided can be tried again");
        drop(listener);
        let mut left = VecDeque::from([good]);
        assert_eq!(race(&mut left).await.err().unwrap().reason, Reason::Refused);
        assert!(race(&mut left).await.unwrap().is_none());
    }
}
