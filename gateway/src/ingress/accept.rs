//! Accepts tunnel connections: TCP, TLS with the newest credentials, who is it, then `serve`.

use crate::{
    ingress::{
        gate::Handshake,
        limits::Beyond,
        serve::{Admitted, Context, serve},
    },
    mtls::{
        peer::{self, Peer},
        verify::reason_of,
    },
    record::{Direction, FlowLabels},
    tunnel::{channel::Channel, handshake, socket},
};
use linkspan_core::api::reason::Reason;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Longest time a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause when the system cannot give another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until all flows must end; then returns once every connection has.
pub async fn accept(listener: TcpListener, context: Context) {
    let context = Arc::new(context);
    let slots = Arc::new(Semaphore::new(context.gate.limits.max_handshakes));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned();
        let next = async {
            context.gate.open().await;
            (slot.await, listener.accept().await)
        };
        tokio::select! {
            () = context.stop.started() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = next => match accepted {
                (Ok(slot), Ok((tcp, from))) => match context.gate.arrive(from.ip()) {
                    Ok(handshake) => {
                        // The handshake in a box, which goes with it: a connection holds little once it is over.
                        let admitting = Box::pin(admit(tcp, from, (slot, handshake), context.clone()));
                        let context = context.clone();
                        connections.spawn(async move {
                            let admitted = admitting.await;
                            if let Some(admitted) = admitted {
                                go_on(admitted, from, &context).await;
                            }
                        });
                    }
                    Err(limit) => turn_away(&tcp, from, limit, &context),
                },
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

fn turn_away(tcp: &TcpStream, from: SocketAddr, limit: Beyond, context: &Context) {
    socket::reset(tcp);
    let detail = format!("a connection from {from} was reset: more than {} allows", limit.as_str());
    context.metrics.denied(&FlowLabels::nowhere(Direction::inbound, ""), Reason::Limit, "", &detail);
}

/// Shakes hands; `None` when nobody is let in.
async fn admit(
    tcp: TcpStream,
    from: SocketAddr,
    held: (OwnedSemaphorePermit, Handshake),
    context: Arc<Context>,
) -> Option<Box<Admitted>> {
    let began = Instant::now();
    let shaken = timeout(HANDSHAKE_TIMEOUT, handshake(tcp, from, &context)).await;
    drop(held);
    let refused = match &shaken {
        Ok(Ok(Some(_))) => None,
        // Load balancers ask in this way whether somebody listens.
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => Some((reason_of(error), error.to_string())),
        Err(_) => Some((Reason::Timeout, "it took too long".to_owned())),
    };
    let outcome = refused.as_ref().map_or(Ok(began.elapsed()), |(reason, _)| Err(*reason));
    context.metrics.shook_hands(outcome);
    if let Some((reason, cause)) = refused {
        let detail = format!("the handshake of {from} failed: {cause}");
        context.metrics.denied(&FlowLabels::nowhere(Direction::inbound, ""), reason, "", &detail);
        return None;
    }
    let Ok(Ok(Some((channel, peer)))) = shaken else { return None };
    let account = &peer.identity.service_account;
    match context.gate.connect(account, context.may_call(&peer).is_ok()) {
        Ok(connected) => Some(Box::new(Admitted { channel, peer, connected })),
        Err(limit) => {
            let detail = format!("a connection of account {account:?}: more than {} allows", limit.as_str());
            let labels = FlowLabels::nowhere(Direction::inbound, "");
            context.metrics.denied(&labels, Reason::Limit, "", &detail);
            channel.abort();
            None
        }
    }
}

async fn go_on(admitted: Box<Admitted>, from: SocketAddr, context: &Context) {
    if let Err(error) = serve(admitted, context).await {
        tracing::debug!(%from, %error, "tunnel connection ended");
    }
}

/// Learns who is at the other end; `None` when that ends the connection without a word.
async fn handshake(
    tcp: TcpStream,
    from: SocketAddr,
    context: &Context,
) -> io::Result<Option<(Channel, Peer)>> {
    socket::prepare_tunnel(&tcp)?;
    if matches!(tcp.peek(&mut [0]).await, Ok(0) | Err(_)) {
        return Ok(None);
    }
    let config = context.credentials.borrow().server.as_ref().map(|server| server.config.clone());
    let config = config.ok_or_else(|| io::Error::other("there is no server certificate yet"))?;
    let channel = handshake::accept(tcp, config, from).await?;
    let leaf = channel.peer_certificates().first();
    let peer = peer::read(leaf.map(AsRef::as_ref).unwrap_or_default()).map_err(io::Error::other)?;
    Ok(Some((channel, peer)))
}
