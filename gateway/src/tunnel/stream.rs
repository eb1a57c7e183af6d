//! One flow of a tunnel as a stream of bytes, for those who talk to the far side themselves instead of splicing.
//!
//! Dropped, the flow ends: in order when both sides have ended it, by a reset otherwise. Either way its connection is
//! given back to the pool as soon as the other gateway agrees. It breaks when a certificate of its connection ends.

use crate::{
    splice::{End, Role},
    split::owned::Owned,
    tunnel::{
        heartbeat::Heartbeat,
        pool::{Leased, Pool},
        settle::settle,
    },
    wire::{Event, Frame, HEADER, Open, data_header},
};
use bytes::{Buf, Bytes};
use linkspan_core::api::{names::Target, reason::Reason};
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until, timeout},
};

/// Bytes that go into one frame.
const PIECE: usize = 64 * 1024;
/// Longest time until a flow is connected on the other side: a lease, a way there and back, an endpoint's connect.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(HEADER + PIECE));
}

/// One flow, whose target is connected.
pub struct TunnelStream {
    leased: Option<Leased>,
    generation: u32,
    inbox: Bytes,
    read_ended: bool,
    write_ended: bool,
    done: bool,
    /// When the flow must end.
    ends: Pin<Box<Sleep>>,
    heartbeat: Heartbeat,
    tasks: Owned,
}

impl TunnelStream {
    /// Opens a flow to `target`, and waits until the other gateway has connected it.
    ///
    /// # Errors
    /// Why it is not carried. Nothing was sent to the target then.
    pub async fn open(
        pool: &Pool,
        target: &Target,
        baggage: &str,
        tasks: &Owned,
    ) -> Result<Self, (Reason, String)> {
        let opening = async {
            let leased = pool.lease().await.map_err(|e| (e.reason, e.detail))?;
            Self::begin(leased, target, baggage, tasks).await
        };
        let late = (Reason::Timeout, "the other gateway did not connect the flow in time".to_owned());
        timeout(OPEN_TIMEOUT, opening).await.unwrap_or(Err(late))
    }

    async fn begin(
        mut leased: Leased,
        target: &Target,
        baggage: &str,
        tasks: &Owned,
    ) -> Result<Self, (Reason, String)> {
        let generation = leased.channel.next_generation();
        let ends = Box::pin(sleep_until(leased.ends()));
        let mut stream = Self {
            leased: Some(leased),
            generation,
            inbox: Bytes::new(),
            read_ended: false,
            write_ended: false,
            done: false,
            ends,
            heartbeat: Heartbeat::new(false),
            tasks: tasks.clone(),
        };
        let broken = |e: io::Error| (Reason::Internal, format!("the tunnel connection broke: {e}"));
        let (target, baggage) = (target.clone(), baggage.to_owned());
        let open = Open { generation, hops: 1, target, baggage, opened_may_wait: false };
        let channel = stream.channel().map_err(broken)?;
        channel.queue(&Frame::Open(open)).map_err(broken)?;
        channel.flush().await.map_err(broken)?;
        loop {
            match stream.channel().map_err(broken)?.event().await.map_err(broken)? {
                Event::Frame(Frame::Opened { generation: ours }) if ours == generation => {
                    let tells = stream.channel().map_err(broken)?.tells_pauses();
                    stream.heartbeat.pulse.peer_tells(tells);
                    return Ok(stream);
                }
                Event::Frame(Frame::Refused { generation: ours, reason })
                    if ours == generation || ours == 0 =>
                {
                    return Err((reason, format!("the other gateway refused the flow: {}", reason.advice())));
                }
                Event::Frame(Frame::Reset { generation: ours, reason }) if ours == generation => {
                    return Err((reason, "the other gateway reset the flow".to_owned()));
                }
                // Late frames of earlier flows.
                Event::Data(_) | Event::Frame(_) => {}
            }
        }
    }

    /// The lease, the flow's number, and what was received and not yet read, for splicing from here on. Nothing may
    /// have been written. The stream itself, when the other side has ended already.
    ///
    /// # Errors
    /// The stream, when it cannot be spliced any more.
    pub fn into_lease(mut self) -> Result<(Leased, u32, Bytes), Box<Self>> {
        match self.leased.take() {
            Some(mut leased) if !self.read_ended => {
                // Splicing says itself when it stops reading. A frame this short always fits.
                let _ = leased.channel.queue(&Frame::Resumed { generation: self.generation });
                Ok((leased, self.generation, std::mem::take(&mut self.inbox)))
            }
            leased => {
                self.leased = leased;
                Err(Box::new(self))
            }
        }
    }

    /// Completes when the other side has said something, or has ended; it can be read afterwards.
    pub async fn spoken(&mut self) {
        while self.inbox.is_empty() && !self.read_ended {
            let event = match self.channel() {
                Ok(channel) => channel.event().await,
                Err(e) => Err(e),
            };
            // What is broken is met again when it is read.
            if event.and_then(|event| self.take_in(event)).is_err() {
                return;
            }
        }
    }

    fn channel(&mut self) -> io::Result<&mut crate::tunnel::channel::Channel> {
        self.leased.as_mut().map(|l| &mut *l.channel).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn take_in(&mut self, event: Event) -> io::Result<()> {
        let ours = self.generation;
        match event {
            Event::Data(data) if !self.read_ended => self.inbox = data,
            Event::Frame(Frame::Paused { generation }) if generation == ours => {
                self.heartbeat.pulse.peer_paused(true);
            }
            Event::Frame(Frame::Resumed { generation }) if generation == ours => {
                self.heartbeat.pulse.peer_paused(false);
            }
            Event::Frame(Frame::Fin { generation }) if generation == ours => self.read_ended = true,
            Event::Frame(Frame::Done { generation }) if generation == ours => {
                self.done = true;
                self.read_ended = true;
            }
            Event::Frame(Frame::Reset { generation, .. } | Frame::Refused { generation, .. })
                if generation == ours =>
            {
                self.read_ended = true;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Event::Data(_) | Event::Frame(_) => {}
        }
        Ok(())
    }

    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let channel = &mut *self.leased.as_mut().ok_or(io::ErrorKind::NotConnected)?.channel;
        if self.read_ended {
            // What the other end says is not read any more.
            self.heartbeat.rest(channel);
            return Ok(());
        }
        self.heartbeat.poll(channel, self.generation, cx)
    }

    /// Queues one frame of `length` bytes that `fill` writes, unless the channel is clogged.
    fn poll_queue(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Poll<io::Result<usize>> {
        if self.write_ended || self.done {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let channel = self.channel()?;
        if channel.is_clogged() {
            ready!(channel.poll_flush(cx))?;
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.extend_from_slice(&data_header(length));
            fill(buffer);
            channel.send(&[&buffer[..]])
        })?;
        self.heartbeat.happened.sent += length;
        self.poll_heartbeat(cx)?;
        Poll::Ready(Ok(length))
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ends.as_mut().poll(cx).is_ready() {
            let expired = Reason::TlsExpired.advice();
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, expired)));
        }
        while self.inbox.is_empty() && !self.read_ended {
            if self.channel()?.is_clogged() {
                let _ = self.channel()?.poll_flush(cx)?;
            }
            let Poll::Ready(event) = self.channel()?.poll_event(cx) else {
                self.heartbeat.happened.caught_up = true;
                self.poll_heartbeat(cx)?;
                return Poll::Pending;
            };
            self.heartbeat.happened.received = true;
            self.heartbeat.happened.caught_up = false;
            self.take_in(event?)?;
        }
        self.poll_heartbeat(cx)?;
        let length = self.inbox.len().min(into.remaining());
        into.put_slice(&self.inbox[..length]);
        self.inbox.advance(length);
        if self.inbox.is_empty() {
            self.inbox = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(PIECE);
        self.poll_queue(cx, length, |buffer| buffer.extend_from_slice(&bytes[..length]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|p| p.len()).sum::<usize>().min(PIECE);
        self.poll_queue(cx, length, |buffer| {
            for piece in pieces {
                let room = HEADER + length - buffer.len();
                buffer.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever flushes and does not read is woken by what arrives: from then on it is behind.
        if self.heartbeat.happened.caught_up
            && self.inbox.is_empty()
            && !self.read_ended
            && let Poll::Ready(event) = self.channel()?.poll_event(cx)
        {
            self.heartbeat.happened.received = true;
            self.heartbeat.happened.caught_up = false;
            self.take_in(event?)?;
        }
        self.poll_heartbeat(cx)?;
        self.channel()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_ended && !self.done {
            let generation = self.generation;
            self.channel()?.queue(&Frame::Fin { generation })?;
            self.write_ended = true;
        }
        self.channel()?.poll_flush(cx)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        let Some(mut leased) = self.leased.take() else { return };
        let (generation, done) = (self.generation, self.done);
        if done && !leased.channel.is_clogged() {
            leased.give_back();
            return;
        }
        // Both have ended it, so the other gateway is about to say that it is through; otherwise it is told to stop.
        let end = if self.write_ended && self.read_ended {
            End::Reset(Reason::Internal)
        } else {
            End::Local(io::ErrorKind::ConnectionAborted.into())
        };
        self.tasks.spawn(async move {
            if settle(&mut leased.channel, generation, Role::Caller, &end).await {
                leased.give_back();
            } else {
                leased.channel.abort();
            }
        });
    }
}
