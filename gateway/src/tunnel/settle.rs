//! After a flow that ended early: brings its channel back to where the next flow can begin.

use crate::{
    splice::{End, Role},
    tunnel::channel::Channel,
    wire::{Event, Frame},
};
use linkspan_core::api::reason::Reason;
use std::{io, time::Duration};
use tokio::time::timeout;

/// Longest time the other gateway may take to agree that a flow is over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells the other gateway that the flow `generation` is over. Whether the channel can carry another flow then; if
/// not, it should be aborted.
pub async fn settle(channel: &mut Channel, generation: u32, role: Role, end: &End) -> bool {
    let reset = match end {
        End::Finished => return true,
        End::Channel(_) | End::Unserved(_) => return false,
        End::Local(_) => Some(Reason::Internal),
        End::Cut(reason) => Some(*reason),
        End::Reset(_) | End::Refused(_) => None,
    };
    let exchange = async {
        if let Some(reason) = reset {
            channel.queue(&Frame::Reset { generation, reason })?;
        }
        match role {
            Role::Called => {
                channel.queue(&Frame::Done { generation })?;
                channel.flush().await
            }
            Role::Caller => {
                channel.flush().await?;
                until_done(channel, generation).await
            }
        }
    };
    matches!(timeout(SETTLE_TIMEOUT, exchange).await, Ok(Ok(())))
}

async fn until_done(channel: &mut Channel, ours: u32) -> io::Result<()> {
    loop {
        if let Event::Frame(Frame::Done { generation }) = channel.event().await?
            && generation == ours
        {
            return Ok(());
        }
    }
}
