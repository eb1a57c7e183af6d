//! Carries one flow: bytes of a plain connection into a channel and back, both directions in one task.
//!
//! Guarantees:
//! * at most [`HELD_MAX`] bytes and one read of the channel are held towards the plain side, and one read of the
//!   plain side towards the channel; beyond that nothing is read;
//! * half-closes pass through each way; the caller's channel is free again when [`End::Finished`] is returned;
//! * while the plain side takes nothing, a RESET is still seen until the bound is reached, and the end of the
//!   channel always;
//! * once the plain side is broken, this is seen even while there is nothing to write to it.
//!
//! Bytes are read into buffers that a thread's flows share, and written from there; a flow holds bytes of its own only
//! while the side they go to takes none.

use crate::{
    mtls::verify::reason_of,
    record::Record,
    tunnel::{
        channel::{Channel, Pieces, broken},
        tls::SEAL_MAX,
    },
    wire::{Frame, HEADER, Piece, data_header},
};
use bytes::{Buf, BytesMut};
use linkspan_core::api::reason::Reason;
use socket2::SockRef;
use std::{
    cell::RefCell,
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
pub const HELD_MAX: usize = 64 * 1024;
/// Bytes read from the plain side at once: with their header they fill whole TLS records.
const READ_SIZE: usize = SEAL_MAX - HEADER;
/// Pieces written to the plain side at once.
const PIECES: usize = 64;
/// Rounds of work until other tasks get their turn.
const ROUNDS: usize = 8;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::default();
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
        local: &local,
        generation,
        role,
        traffic,
        held: BytesMut::new(),
        local_ended: false,
        channel_ended: false,
        told_local: false,
        done: false,
    };
    poll_fn(|cx| {
        if let Poll::Ready(reason) = cut.as_mut().poll(cx) {
            return Poll::Ready(End::Cut(reason));
        }
        if let Poll::Ready(end) = flow.poll(channel, cx) {
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
    local: &'a TcpStream,
    generation: u32,
    role: Role,
    traffic: &'a Traffic,
    /// Received, and not yet taken by the plain side.
    held: BytesMut,
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
    fn poll(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            let down = match self.poll_receive(channel, cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                other => other.is_ready(),
            };
            let delivered = match self.poll_deliver(channel, cx) {
                Poll::Ready(Err(e)) => return Poll::Ready(End::Local(e)),
                other => other.is_ready(),
            };
            let up = match self.poll_send(channel, cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                other => other.is_ready(),
            };
            if self.done && self.told_local && self.local_ended && !channel.is_clogged() {
                return Poll::Ready(End::Finished);
            }
            if !(delivered || up || down) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads the channel once if there is room, and hands on what came. Ready when something did.
    fn poll_receive(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.held.len() >= HELD_MAX || self.done {
            return Poll::Pending;
        }
        match ready!(channel.poll_pieces(cx, |pieces| self.receive(pieces))) {
            Ok(received) => Poll::Ready(received),
            Err(e) => Poll::Ready(Err(End::Channel(e))),
        }
    }

    fn receive(&mut self, pieces: &mut Pieces<'_>) -> Result<(), End> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        while !self.done
            && let Some(piece) = pieces.next().map_err(End::Channel)?
        {
            match piece {
                Piece::Data(data) if !self.channel_ended => {
                    slices[count] = IoSlice::new(data);
                    count += 1;
                    if count == PIECES {
                        self.hand_on(&mut slices).map_err(End::Local)?;
                        count = 0;
                    }
                }
                Piece::Data(_) | Piece::Frame(Frame::Open(_)) => {
                    return Err(End::Channel(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the other gateway sent data after the end of a flow, or opened one within another",
                    )));
                }
                Piece::Frame(frame) => self.control(&frame)?,
            }
        }
        self.hand_on(&mut slices[..count]).map_err(End::Local)
    }

    fn control(&mut self, frame: &Frame) -> Result<(), End> {
        let ours = self.generation;
        match *frame {
            Frame::Fin { generation } if generation == ours => self.channel_ended = true,
            Frame::Done { generation } if generation == ours => self.done = true,
            Frame::Reset { generation, reason } if generation == ours => return Err(End::Reset(reason)),
            Frame::Refused { generation, reason } if generation == ours || generation == 0 => {
                return Err(End::Refused(reason));
            }
            // Late frames of earlier flows, and what is answered elsewhere.
            _ => {}
        }
        Ok(())
    }

    /// Writes `slices` to the plain side; what it does not take is held.
    fn hand_on(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while self.held.is_empty() && !slices.is_empty() {
            match self.local.try_write_vectored(slices) {
                Ok(taken) => {
                    self.traffic.down.fetch_add(taken as u64, Ordering::Relaxed);
                    IoSlice::advance_slices(&mut slices, taken);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        for slice in slices {
            self.held.extend_from_slice(slice);
        }
        Ok(())
    }

    /// Writes what is held to the plain side. Ready when something moved.
    fn poll_deliver(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut moved = false;
        while !self.held.is_empty() {
            match self.local.try_write(&self.held) {
                Ok(taken) => {
                    self.traffic.down.fetch_add(taken as u64, Ordering::Relaxed);
                    self.held.advance(taken);
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
        if self.held.is_empty() {
            self.held = BytesMut::new();
            if self.channel_ended && !self.told_local {
                // A plain side that is gone already shows as broken, here or at the next read.
                let _ = SockRef::from(self.local).shutdown(Shutdown::Write);
                self.told_local = true;
                moved = true;
            }
        }
        if self.is_through() {
            channel.queue(&Frame::Done { generation: self.generation })?;
            self.done = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether the called side has delivered everything and has not said so yet.
    fn is_through(&self) -> bool {
        self.role == Role::Called && self.told_local && self.local_ended && !self.done
    }

    /// Reads the plain side and sends that, or sends what waits. Ready when something moved.
    fn poll_send(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(channel.poll_flush(cx)).map_err(End::Channel)?;
        if self.local_ended { Poll::Pending } else { self.poll_read_local(channel, cx) }
    }

    fn poll_read_local(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        BUFFER.with_borrow_mut(|buffer| {
            loop {
                buffer.resize(HEADER + READ_SIZE, 0);
                let length = self.read_local(&mut buffer[HEADER..]).map_err(End::Local)?;
                if length == 0 && !self.local_ended {
                    ready!(self.local.poll_read_ready(cx)).map_err(End::Local)?;
                    continue;
                }
                self.traffic.up.fetch_add(length as u64, Ordering::Relaxed);
                buffer.truncate(if length > 0 { HEADER + length } else { 0 });
                if length > 0 {
                    buffer[..HEADER].copy_from_slice(&data_header(length));
                }
                // The end leaves in one write with the last bytes.
                if self.local_ended {
                    self.encode_end(buffer).map_err(End::Channel)?;
                }
                return Poll::Ready(channel.send(buffer).map_err(End::Channel));
            }
        })
    }

    /// Reads until there is nothing more or `buffer` is full.
    fn read_local(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match self.local.try_read(&mut buffer[length..]) {
                Ok(0) => {
                    self.local_ended = true;
                    break;
                }
                Ok(read) => length += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(length)
    }

    fn encode_end(&mut self, frames: &mut BytesMut) -> io::Result<()> {
        Frame::Fin { generation: self.generation }.encode(frames)?;
        if self.is_through() {
            Frame::Done { generation: self.generation }.encode(frames)?;
            self.done = true;
        }
        Ok(())
    }
}
