//! Accepts tunnel connections: TCP, TLS with the newest credentials, who is it, then `serve`.

use crate::{
    ingress::serve::{Context, serve},
    mtls::{
        peer::{self, Peer},
        verify::reason_of,
    },
    record::Direction,
    tunnel::{channel::Channel, handshake, socket},
};
use linkspan_core::api::reason::Reason;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Handshakes in flight; more wait in the system's queue.
const HANDSHAKES: usize = 256;
/// Longest time a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause when the system cannot give another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until all flows must end; then returns once every connection has.
pub async fn accept(listener: TcpListener, context: Context) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned();
        tokio::select! {
            () = context.stop.started() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = async { (slot.await, listener.accept().await) } => match accepted {
                (Ok(slot), Ok((tcp, from))) => {
                    let context = context.clone();
                    connections.spawn(async move { connection(tcp, from, slot, &context).await });
                }
                (_, accepted) => {
                    if let Err(error) = accepted {
                        tracing::warn!(%error, "cannot accept a tunnel connection; trying again");
                    }
                    sleep(PAUSE).await;
                }
            },
        }
    }
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a tunnel connection failed");
    }
}

async fn connection(tcp: TcpStream, from: SocketAddr, slot: OwnedSemaphorePermit, context: &Context) {
    let (channel, caller) = match timeout(HANDSHAKE_TIMEOUT, Box::pin(handshake(tcp, from, context))).await {
        Ok(Ok(met)) => met,
        Ok(Err(error)) => {
            context.metrics.denied(Direction::inbound, "", reason_of(&error));
            tracing::debug!(%from, %error, "tunnel connection refused");
            return;
        }
        Err(_) => {
            context.metrics.denied(Direction::inbound, "", Reason::Timeout);
            tracing::debug!(%from, "tunnel connection dropped: its handshake took too long");
            return;
        }
    };
    drop(slot);
    let account = caller.identity.service_account.clone();
    if let Err(error) = serve(channel, caller, context).await {
        tracing::debug!(%from, account, %error, "tunnel connection ended");
    }
}

async fn handshake(tcp: TcpStream, from: SocketAddr, context: &Context) -> io::Result<(Channel, Peer)> {
    socket::prepare_tunnel(&tcp)?;
    let config = context.credentials.borrow().server.as_ref().map(|server| server.config.clone());
    let config = config.ok_or_else(|| io::Error::other("there is no server certificate yet"))?;
    let channel = handshake::accept(tcp, config, from).await?;
    let leaf = channel.peer_certificates().first();
    let caller = peer::read(leaf.map(AsRef::as_ref).unwrap_or_default()).map_err(io::Error::other)?;
    Ok((channel, caller))
}
