//! Carries one flow: bytes of a plain connection into a channel and back, both directions in one task.
//!
//! Guarantees:
//! * at most 32 KiB and one read of the channel are held towards the plain side, and one read of the
//!   plain side towards the channel, less than 256 KiB each; beyond that nothing is read;
//! * half-closes pass through each way; the caller's channel is free again when [`End::Finished`] is returned;
//! * while the plain side takes nothing, a RESET is still seen until the bound is reached, and the end of the
//!   channel always;
//! * once a side is broken, this is seen even while it is neither read nor written.
//!
//! Bytes are read into buffers that a thread's flows share, and written from there; a flow holds bytes of its own only
//! while the side they go to takes none.

mod flow;

use crate::{
    mtls::verify::reason_of,
    record::{Record, Traffic},
    splice::flow::Flow,
    tunnel::channel::{Channel, broken},
};
use linkspan_core::api::reason::Reason;
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;

/// Which end of the tunnel this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that sent OPEN.
    Caller,
    /// The one that received it.
    Called,
}

/// How a flow ended.
#[derive(Debug)]
pub enum End {
    /// Both directions ended and all was delivered; the channel can carry the next flow.
    Finished,
    /// The plain side broke.
    Local(io::Error),
    /// The other gateway reset the flow.
    Reset(Reason),
    /// The other gateway did not accept the flow.
    Refused(Reason),
    /// The channel broke.
    Channel(io::Error),
    /// The channel ended before the other gateway can have carried anything: the flow can begin again on another one.
    Unserved(io::Error),
    /// Ended from outside.
    Cut(Reason),
}

impl End {
    /// Why the flow did not end as it should; `None` when it did.
    pub fn failure(&self) -> Option<(Reason, String)> {
        Some(match self {
            End::Finished => return None,
            End::Local(e) => (Reason::Internal, format!("the plain connection broke: {e}")),
            End::Reset(reason) => (*reason, "the other gateway reset the flow".to_owned()),
            End::Refused(reason) => (*reason, "the other gateway refused the flow".to_owned()),
            End::Channel(e) | End::Unserved(e) => (reason_of(e), format!("the tunnel connection broke: {e}")),
            End::Cut(reason) => (*reason, "no longer allowed, expired, or shutting down".to_owned()),
        })
    }

    /// Writes the end into the flow's record.
    pub fn tell(&self, record: &mut Record) {
        match self.failure() {
            None => record.finished(),
            Some((reason, detail)) => record.failed(reason, detail),
        }
    }
}

/// Carries the flow `generation` until it ends, or until `cut` completes.
pub async fn splice(
    channel: &mut Channel,
    local: Arc<TcpStream>,
    generation: u32,
    role: Role,
    traffic: &Traffic,
    cut: impl Future<Output = Reason>,
) -> End {
    let (mut channel_broken, mut local_broken) = (Watch(None), Watch(None));
    let mut cut = pin!(cut);
    let mut flow = Flow::new(&local, generation, role, traffic, channel.tells_pauses());
    let end = poll_fn(|cx| {
        if let Poll::Ready(reason) = cut.as_mut().poll(cx) {
            return Poll::Ready(End::Cut(reason));
        }
        if let Poll::Ready(end) = flow.poll(channel, cx) {
            return Poll::Ready(end);
        }
        // Whoever reads a side meets its end there.
        let watch_local = !flow.reads_local(channel) && !flow.has_told_local();
        if local_broken.poll(watch_local, || broken(local.clone()), cx).is_ready() {
            return Poll::Ready(End::Local(io::ErrorKind::ConnectionReset.into()));
        }
        let broken = channel_broken.poll(!flow.reads_channel(), || channel.broken(), cx);
        broken.map(|()| End::Channel(io::ErrorKind::ConnectionReset.into()))
    })
    .await;
    channel.set_strict(channel.tells_pauses());
    match end {
        End::Channel(e) if flow.is_unanswered() && may_repeat(channel, traffic) => End::Unserved(e),
        end => end,
    }
}

/// Waits for the end of a connection that is not read at the moment; most flows never need it, and are many.
struct Watch(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Watch {
    /// Ready when the connection is broken; asked for only while `wanted`.
    fn poll<F>(&mut self, wanted: bool, broken: impl FnOnce() -> F, cx: &mut Context<'_>) -> Poll<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !wanted {
            self.0 = None;
            return Poll::Pending;
        }
        self.0.get_or_insert_with(|| Box::pin(broken())).as_mut().poll(cx)
    }
}

/// Whether a flow that was never answered can begin again elsewhere: the other gateway ended the connection in order,
/// which it never does once it has taken a flow; or it got nothing that could have had an effect.
fn may_repeat(channel: &Channel, traffic: &Traffic) -> bool {
    channel.was_closed() || traffic.bytes().0 == 0
}
