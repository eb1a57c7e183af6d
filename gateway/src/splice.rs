//! Carries one flow: bytes of a plain connection into a channel and back, both directions in one task.
//!
//! Guarantees:
//! * at most [`HELD_MAX`] bytes and one read of the channel are held per direction; beyond that nothing is read;
//! * half-closes pass through each way; the caller's channel is free again when [`End::Finished`] is returned;
//! * while the plain side takes nothing, a RESET is still seen until the bound is reached, and the end of the
//!   channel always;
//! * once the plain side is broken, this is seen even while there is nothing to write to it.

use crate::{
    mtls::verify::reason_of,
    record::Record,
    tunnel::channel::{Channel, broken},
    wire::{Event, Frame, HEADER, data_header},
};
use bytes::{Buf, Bytes};
use linkspan_core::api::reason::Reason;
use socket2::SockRef;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    net::Shutdown,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::net::TcpStream;

/// Most bytes that wait for a plain side that takes none.
pub const HELD_MAX: usize = 128 * 1024;
/// Bytes read from the plain side at once.
const READ_SIZE: usize = 64 * 1024;
/// Pieces written to the plain side at once.
const PIECES: usize = 16;
/// Rounds of work until other tasks get their turn.
const ROUNDS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; HEADER + READ_SIZE]);
}

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
    /// Ended from outside.
    Cut(Reason),
}

impl End {
    /// Writes the end into the flow's record.
    pub fn tell(&self, record: &mut Record) {
        match self {
            End::Finished => record.finished(),
            End::Local(e) => record.failed(Reason::Internal, format!("the plain connection broke: {e}")),
            End::Reset(reason) => record.failed(*reason, "the other gateway reset the flow"),
            End::Refused(reason) => record.failed(*reason, "the other gateway refused the flow"),
            End::Channel(e) => record.failed(reason_of(e), format!("the tunnel connection broke: {e}")),
            End::Cut(reason) => record.failed(*reason, "no longer allowed, or shutting down"),
        }
    }
}

/// Bytes carried so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the plain side into the channel.
    pub up: AtomicU64,
    /// From the channel to the plain side.
    pub down: AtomicU64,
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
    let mut channel_broken = pin!(channel.broken());
    let mut local_broken = pin!(broken(local.clone()));
    let mut cut = pin!(cut);
    let mut flow = Flow {
        channel,
        local: &local,
        generation,
        role,
        traffic,
        held: VecDeque::new(),
        held_bytes: 0,
        local_ended: false,
        channel_ended: false,
        told_local: false,
        done: false,
    };
    poll_fn(|cx| {
        if let Poll::Ready(reason) = cut.as_mut().poll(cx) {
            return Poll::Ready(End::Cut(reason));
        }
        if let Poll::Ready(end) = flow.poll(cx) {
            return Poll::Ready(end);
        }
        if !flow.told_local && local_broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Local(io::ErrorKind::ConnectionReset.into()));
        }
        poll_broken(channel_broken.as_mut(), cx)
    })
    .await
}

fn poll_broken(future: Pin<&mut impl Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<End> {
    future.poll(cx).map(|()| End::Channel(io::ErrorKind::ConnectionReset.into()))
}

/// One flow while it is carried.
struct Flow<'a> {
    channel: &'a mut Channel,
    local: &'a TcpStream,
    generation: u32,
    role: Role,
    traffic: &'a Traffic,
    /// Received, and not yet taken by the plain side.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// The plain side sends no more; FIN is queued.
    local_ended: bool,
    /// FIN was received.
    channel_ended: bool,
    /// The plain side was told that no more comes.
    told_local: bool,
    /// The called side is through.
    done: bool,
}

impl Flow<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            let down = self.poll_receive(cx);
            if let Poll::Ready(Some(end)) = down {
                return Poll::Ready(end);
            }
            let delivered = match self.poll_deliver(cx) {
                Poll::Ready(Err(e)) => return Poll::Ready(End::Local(e)),
                other => other.is_ready(),
            };
            let up = match self.poll_send(cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                other => other.is_ready(),
            };
            if self.done && self.told_local && self.local_ended && !self.channel.is_clogged() {
                return Poll::Ready(End::Finished);
            }
            if !(delivered || up || down.is_ready()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads the channel while there is room. Ready when something came, with the end if this was it.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let mut came = false;
        while self.held_bytes < HELD_MAX && !self.done {
            match self.channel.poll_event(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Poll::Ready(Some(End::Channel(e))),
                Poll::Ready(Ok(event)) => {
                    came = true;
                    if let Some(end) = self.receive(event) {
                        return Poll::Ready(Some(end));
                    }
                }
            }
        }
        if came { Poll::Ready(None) } else { Poll::Pending }
    }

    fn receive(&mut self, event: Event) -> Option<End> {
        let ours = self.generation;
        match event {
            Event::Data(data) if !self.channel_ended => {
                self.held_bytes += data.len();
                self.held.push_back(data);
            }
            Event::Data(_) | Event::Frame(Frame::Open(_)) => {
                return Some(End::Channel(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the other gateway sent data after the end of a flow, or opened one within another",
                )));
            }
            Event::Frame(Frame::Fin { generation }) if generation == ours => self.channel_ended = true,
            Event::Frame(Frame::Done { generation }) if generation == ours => self.done = true,
            Event::Frame(Frame::Reset { generation, reason }) if generation == ours => {
                return Some(End::Reset(reason));
            }
            Event::Frame(Frame::Refused { generation, reason }) if generation == ours || generation == 0 => {
                return Some(End::Refused(reason));
            }
            // Late frames of earlier flows, and what is answered elsewhere.
            Event::Frame(_) => {}
        }
        None
    }

    /// Writes what is held to the plain side. Ready when something moved.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut moved = false;
        while self.held_bytes > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (slot, bytes) in pieces.iter_mut().zip(&self.held) {
                *slot = IoSlice::new(bytes);
                count += 1;
            }
            match self.local.try_write_vectored(&pieces[..count]) {
                Ok(n) => {
                    self.take_held(n);
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.local.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => break,
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        if self.held_bytes == 0 && self.channel_ended && !self.told_local {
            // A plain side that is gone already shows as broken, here or at the next read.
            let _ = SockRef::from(self.local).shutdown(Shutdown::Write);
            self.told_local = true;
            moved = true;
        }
        self.queue_done()?;
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// The called side says when it is through; in the same write as its FIN where that comes last.
    fn queue_done(&mut self) -> io::Result<()> {
        if self.role == Role::Called && self.told_local && self.local_ended && !self.done {
            self.channel.queue(&Frame::Done { generation: self.generation })?;
            self.done = true;
        }
        Ok(())
    }

    fn take_held(&mut self, mut taken: usize) {
        self.traffic.down.fetch_add(taken as u64, Ordering::Relaxed);
        self.held_bytes -= taken;
        while taken > 0 {
            let Some(front) = self.held.front_mut() else { return };
            if front.len() > taken {
                front.advance(taken);
                return;
            }
            taken -= front.len();
            self.held.pop_front();
        }
        if self.held.is_empty() {
            self.held = VecDeque::new();
        }
    }

    /// Sends what is queued, then reads the plain side and sends that. Ready when something moved.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.channel.is_clogged() {
            ready!(self.channel.poll_flush(cx)).map_err(End::Channel)?;
        }
        let read =
            if self.local_ended { Poll::Pending } else { self.poll_read_local(cx).map_err(End::Local)? };
        let _ = self.channel.poll_flush(cx).map_err(End::Channel)?;
        read.map(Ok)
    }

    fn poll_read_local(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let read = BUFFER.with_borrow_mut(|buffer| {
                let length = self.local.try_read(&mut buffer[HEADER..])?;
                if length > 0 {
                    buffer[..HEADER].copy_from_slice(&data_header(length));
                    self.channel.queue_encoded(&buffer[..HEADER + length])?;
                }
                Ok::<_, io::Error>(length)
            });
            match read {
                Ok(0) => {
                    self.local_ended = true;
                    self.channel.queue(&Frame::Fin { generation: self.generation })?;
                    self.queue_done()?;
                    return Poll::Ready(Ok(()));
                }
                Ok(length) => {
                    self.traffic.up.fetch_add(length as u64, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.local.poll_read_ready(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}
