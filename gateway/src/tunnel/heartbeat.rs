//! The pulse of a flow on its connection: says what [`Pulse`] advises, and wakes when it must be asked again.

use crate::{
    tunnel::{
        channel::Channel,
        pulse::{Happened, Pulse},
    },
    wire::Frame,
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// What a flow knows of the other end of its connection.
pub struct Heartbeat {
    /// Takes in what the other end says of itself.
    pub pulse: Pulse,
    /// Since the pulse was last asked; whether all was read is kept until somebody says otherwise.
    pub happened: Happened,
    /// Wakes for the pulse; most flows never need it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Heartbeat {
    /// A flow that begins now, with an end that tells when it stops reading, or does not.
    pub fn new(peer_tells: bool) -> Self {
        let mut pulse = Pulse::new(Instant::now());
        pulse.peer_tells(peer_tells);
        Self { pulse, happened: Happened { caught_up: true, ..Happened::default() }, timer: None }
    }

    /// Asks whether the other end is still there, and tells it when nothing of the flow `generation` is read here. Wakes
    /// when this is to be done again; whoever reads and writes nothing flushes then at least.
    ///
    /// # Errors
    /// When the other end is gone, or the connection is broken.
    pub fn poll(&mut self, channel: &mut Channel, generation: u32, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let rest = Happened { caught_up: self.happened.caught_up, ..Happened::default() };
            let advice = self.pulse.on(std::mem::replace(&mut self.happened, rest), now);
            if advice.gone {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // While the other end takes nothing, one word more would only wait as well.
            if advice.pause && !channel.is_clogged() {
                channel.queue(&Frame::Paused { generation })?;
            }
            if advice.resume {
                channel.queue(&Frame::Resumed { generation })?;
            }
            let _ = channel.poll_flush(cx)?;
            channel.set_strict(self.pulse.is_strict(now));
            let Some(at) = self.pulse.wake_at() else {
                self.timer = None;
                return Ok(());
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx) == Poll::Pending {
                return Ok(());
            }
        }
    }

    /// Nobody reads this flow any more: the system judges as for any connection.
    pub fn rest(&mut self, channel: &mut Channel) {
        self.timer = None;
        channel.set_strict(false);
    }
}
