//! What a flow does each time something happens: receive, deliver, read, send, ask for the pulse.

use crate::{
    record::Traffic,
    splice::{End, Role},
    tunnel::{
        channel::{self, Channel},
        heartbeat::Heartbeat,
        pieces::Pieces,
        socket::read_some,
        tls::{RECORD, RECORD_PLAIN, SEAL_MAX, SEALED_ROOM},
    },
    wire::{Frame, HEADER, Piece, TELLS_PAUSES, data_header},
};
use bytes::{Buf, BytesMut};
use socket2::SockRef;
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    net::Shutdown,
    task::{Context, Poll, ready},
};
use tokio::net::TcpStream;

/// Most bytes of a flow that are held in one direction, whatever its ends do.
const MOST: usize = 256 * 1024;
// Towards the plain side: what waits for it, one more read of the channel, and the beginning of a record.
const _: () = assert!(HELD_MAX + channel::READ_SIZE + RECORD <= MOST);
// Towards the channel: what was read of the plain side at once, encrypted.
const _: () = assert!(SEALED_ROOM <= MOST);

/// Most bytes that wait for a plain side that takes none.
const HELD_MAX: usize = 32 * 1024;
/// Most bytes read from the plain side at once, with their header: they fill whole TLS records.
const READ_SIZE: usize = SEAL_MAX;
/// So many are read until there were more than that: a thread whose flows are idle holds no large buffer.
const READ_FIRST: usize = RECORD_PLAIN;
/// Pieces written to the plain side at once.
const PIECES: usize = 64;
/// Rounds of work until other tasks get their turn.
const ROUNDS: usize = 8;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// One flow while it is carried.
pub(super) struct Flow<'a> {
    heartbeat: Heartbeat,
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
    /// Whether anything of this flow has come from the other side.
    answered: bool,
}

impl<'a> Flow<'a> {
    /// A flow that begins.
    pub(super) fn new(
        local: &'a TcpStream,
        generation: u32,
        role: Role,
        traffic: &'a Traffic,
        peer_tells: bool,
    ) -> Self {
        Self {
            heartbeat: Heartbeat::new(peer_tells),
            local,
            generation,
            role,
            traffic,
            held: BytesMut::new(),
            local_ended: false,
            channel_ended: false,
            told_local: false,
            done: false,
            answered: false,
        }
    }

    /// Whether nothing of this flow has come from the other side.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered
    }

    /// Whether the plain side was told that no more comes; from then on its end is no news.
    pub(super) fn has_told_local(&self) -> bool {
        self.told_local
    }

    /// Whether the plain side is read, now that nothing can be carried.
    pub(super) fn reads_local(&self, channel: &Channel) -> bool {
        !self.local_ended && !channel.is_clogged()
    }

    /// Whether the channel is read, now that nothing can be carried.
    pub(super) fn reads_channel(&self) -> bool {
        // After DONE nothing more of this flow comes.
        self.held.len() < HELD_MAX && !self.done
    }

    /// Carries what can be carried now. Ready when the flow has ended.
    pub(super) fn poll(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(end) = self.poll_carry(channel, cx) {
            return Poll::Ready(end);
        }
        match self.heartbeat.poll(channel, self.generation, cx) {
            Err(e) => Poll::Ready(End::Channel(e)),
            Ok(()) => Poll::Pending,
        }
    }

    fn poll_carry(&mut self, channel: &mut Channel, cx: &mut Context<'_>) -> Poll<End> {
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
        if !self.reads_channel() {
            self.heartbeat.happened.caught_up = self.done;
            return Poll::Pending;
        }
        let received = channel.poll_pieces(cx, |pieces| self.receive(pieces));
        self.heartbeat.happened.caught_up = received.is_pending();
        self.heartbeat.happened.received |= received.is_ready();
        match ready!(received) {
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
            self.answered |= self.is_answer(&piece);
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

    /// Whether `piece` shows that the other side knows of this flow.
    fn is_answer(&self, piece: &Piece<'_>) -> bool {
        match piece {
            Piece::Data(_) => true,
            Piece::Frame(frame) => frame.generation() == Some(self.generation),
        }
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
            Frame::Paused { generation } if generation == ours => self.heartbeat.pulse.peer_paused(true),
            Frame::Resumed { generation } if generation == ours => self.heartbeat.pulse.peer_paused(false),
            Frame::Hello { features } => self.heartbeat.pulse.peer_tells(features & TELLS_PAUSES != 0),
            // Late frames of earlier flows, and what is answered elsewhere.
            _ => {}
        }
        Ok(())
    }

    /// Writes `slices` to the plain side; what it does not take is held.
    fn hand_on(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while self.held.is_empty() && !slices.is_empty() {
            let written = match &*slices {
                [one] => self.local.try_write(one),
                many => self.local.try_write_vectored(many),
            };
            match written {
                Ok(taken) => {
                    self.traffic.add_down(taken);
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
                    self.traffic.add_down(taken);
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
            // Zeroed once: what is sent is what was read.
            if buffer.is_empty() {
                buffer.resize(READ_FIRST, 0);
            }
            loop {
                let length = self.read_local(&mut buffer[HEADER..]).map_err(End::Local)?;
                if length == 0 && !self.local_ended {
                    ready!(self.local.poll_read_ready(cx)).map_err(End::Local)?;
                    continue;
                }
                self.traffic.add_up(length);
                self.heartbeat.happened.sent += length;
                buffer[..HEADER].copy_from_slice(&data_header(length));
                let more =
                    if HEADER + length == buffer.len() { (2 * buffer.len()).min(READ_SIZE) } else { 0 };
                let data = if length > 0 { &buffer[..HEADER + length] } else { &[] };
                // The end leaves in one write with the last bytes.
                let mut end = BytesMut::new();
                if self.local_ended {
                    self.encode_end(&mut end).map_err(End::Channel)?;
                }
                let sent = channel.send(&[data, &end]).map_err(End::Channel);
                if more > buffer.len() {
                    buffer.resize(more, 0);
                }
                return Poll::Ready(sent);
            }
        })
    }

    /// Reads until there is nothing more or `buffer` is full.
    fn read_local(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match read_some(self.local, &mut buffer[length..]) {
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
