//! Makes one connection to a gateway: TCP, TLS, and a first PING, so that a connection counts only once the other
//! side has accepted our certificate.

use crate::{
    mtls::verify::reason_of,
    tunnel::{channel::Channel, handshake, peer_state::PeerState, socket},
    wire::{Event, Frame},
};
use linkspan_core::api::reason::Reason;
use rustls::ClientConfig;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

/// Longest time one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
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
}

/// Tries the addresses of `peer` one after the other, the one at `first` (counted round) first.
///
/// # Errors
/// What went wrong at the last address.
pub async fn dial(peer: &PeerState, first: usize) -> Result<Dialed, DialError> {
    if let Some((reason, detail)) = peer.blocked() {
        return Err(DialError { reason, detail });
    }
    let began = Instant::now();
    let mut last = DialError { reason: Reason::NoCredentials, detail: "no client certificate".to_owned() };
    let count = peer.addresses.len();
    let Some(tls) = &peer.tls else { return Err(last) };
    for address in peer.addresses.iter().cycle().skip(first % count.max(1)).take(count) {
        match dial_address(*address, tls.clone(), &peer.identity.to_string()).await {
            Ok(channel) => return Ok(Dialed { channel, took: began.elapsed(), epoch: peer.epoch }),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn dial_address(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    identity: &str,
) -> Result<Channel, DialError> {
    let slow = |what: &str| DialError {
        reason: Reason::Timeout,
        detail: format!("{address}: {what} took too long"),
    };
    let failed = |e: &io::Error| DialError { reason: reason_of(e), detail: format!("{address}: {e}") };
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| slow("connecting"))?
        .map_err(|e| failed(&e))?;
    let handshake = async {
        socket::prepare_tunnel(&tcp)?;
        let mut channel = handshake::connect(tcp, tls, address).await?;
        greet(&mut channel, identity).await?;
        Ok::<_, io::Error>(channel)
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| slow("the handshake"))?.map_err(|e| {
        match e.get_ref().and_then(|inner| inner.downcast_ref::<DialError>()) {
            Some(told) => DialError { reason: told.reason, detail: format!("{address}: {told}") },
            None => failed(&e),
        }
    })
}

async fn greet(channel: &mut Channel, identity: &str) -> io::Result<()> {
    ping(channel, 0, identity).await
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
