//! One TLS connection to another gateway, as frames.
//!
//! All connections of a thread share its large buffers: a read takes up to [`READ_SIZE`] bytes from the system and
//! decrypts them; a write encrypts several TLS records and hands them to the system at once. What a connection keeps
//! for itself is what could not be used yet, or was not taken by the system.

use crate::{
    tunnel::{
        pieces::{Pieces, Said},
        pulse::SILENCE,
        socket::read_some,
        tls::{Outgoing, RECORD, SEAL_MAX, Tls},
    },
    wire::{Decoder, Event, Frame, TELLS_PAUSES},
};
use bytes::{Buf, BytesMut};
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{io::Interest, net::TcpStream};

/// Most bytes taken from the system at once.
pub const READ_SIZE: usize = 128 * 1024;
/// So many are taken until there were more than that: a thread whose flows are idle holds no large buffers.
const READ_FIRST: usize = 16 * 1024;
/// Most bytes that may wait for the rest of a TLS record or handshake message.
const WAITING_MAX: usize = 2 * RECORD;

thread_local! {
    static RECEIVING: RefCell<Receiving> = RefCell::default();
    static SENDING: RefCell<Outgoing> = RefCell::default();
}

/// What a thread receives into: records as they come, and what was in them.
#[derive(Default)]
struct Receiving {
    /// How many bytes are asked for at once.
    size: usize,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    out: Outgoing,
}

/// An established connection to another gateway. Used by one task at a time.
pub struct Channel {
    tcp: Arc<TcpStream>,
    /// In a box, as tasks move channels about.
    tls: Box<Tls>,
    address: SocketAddr,
    decoder: Decoder,
    /// Received and not decrypted: the beginning of a record.
    waiting: Vec<u8>,
    /// Decrypted and not decoded: the beginning of a frame, or all that came after the last frame asked for.
    unread: Vec<u8>,
    /// Whether `unread` may hold whole frames.
    more: bool,
    /// Frames that are not encrypted.
    queued: BytesMut,
    /// Whether these may wait until something else is sent.
    may_wait: bool,
    /// Encrypted and not taken by the system.
    unsent: BytesMut,
    /// Nothing more comes.
    ended: bool,
    /// The other side has said that nothing more comes.
    closed: bool,
    said: Said,
    /// Whether the system ends the connection when what was sent is not acknowledged.
    strict: bool,
    generation: u32,
}

impl Channel {
    /// A channel over `tcp`, whose handshake `tls` has completed; `waiting` is what it left over, `unread` what it
    /// decrypted already.
    ///
    /// # Errors
    /// Never: HELLO fits a frame.
    pub fn new(
        tcp: TcpStream,
        tls: Tls,
        address: SocketAddr,
        waiting: Vec<u8>,
        unread: Vec<u8>,
    ) -> io::Result<Self> {
        let mut queued = BytesMut::new();
        Frame::Hello { features: TELLS_PAUSES }.encode(&mut queued)?;
        Ok(Self {
            tcp: Arc::new(tcp),
            tls: Box::new(tls),
            address,
            decoder: Decoder::default(),
            waiting,
            more: !unread.is_empty(),
            unread,
            queued,
            may_wait: false,
            unsent: BytesMut::new(),
            ended: false,
            closed: false,
            said: Said::default(),
            strict: false,
            generation: 0,
        })
    }

    /// The other end's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the other end proved itself by, its own certificate first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.state().peer_certificates().unwrap_or_default()
    }

    /// What TLS has negotiated.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Number for the next flow on this connection.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Whether the system did not take all of what was sent: send nothing more until it has.
    pub fn is_clogged(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the other side asked for no new flows on this connection.
    pub fn is_leaving(&self) -> bool {
        self.said.leaving
    }

    /// Whether the other side has ended the connection in order.
    pub fn was_closed(&self) -> bool {
        self.closed
    }

    /// Whether the system knows already that the other end is gone, perhaps before the runtime does.
    pub fn has_ended(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&*self.tcp).peek(&mut byte) {
            Ok(count) => count == 0,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Whether the other side tells when it stops reading.
    pub fn tells_pauses(&self) -> bool {
        self.said.features & TELLS_PAUSES != 0
    }

    /// Whether the system is to end the connection when what was sent is not acknowledged for [`SILENCE`].
    pub fn set_strict(&mut self, strict: bool) {
        if self.strict != strict {
            self.strict = strict;
            // Failing means that the connection has ended.
            let _ = SockRef::from(&*self.tcp).set_tcp_user_timeout(strict.then_some(SILENCE));
        }
    }

    /// Queues a frame; it leaves with what is sent next.
    ///
    /// # Errors
    /// When the frame is longer than the wire allows.
    pub fn queue(&mut self, frame: &Frame) -> io::Result<()> {
        self.may_wait = false;
        Ok(frame.encode(&mut self.queued)?)
    }

    /// Queues a frame that nobody waits for: it leaves with whatever is sent next, and not before.
    ///
    /// # Errors
    /// When the frame is longer than the wire allows.
    pub fn queue_with_next(&mut self, frame: &Frame) -> io::Result<()> {
        self.may_wait |= self.queued.is_empty();
        Ok(frame.encode(&mut self.queued)?)
    }

    /// Queues bytes that are frames already.
    pub fn queue_encoded(&mut self, bytes: &[u8]) {
        self.may_wait &= bytes.is_empty();
        self.queued.extend_from_slice(bytes);
    }

    /// Sends what is queued, then `parts`, which are encoded frames. What the system does not take now is kept;
    /// [`Channel::is_clogged`] says so.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let queued = std::mem::take(&mut self.queued);
        self.may_wait = false;
        SENDING.with_borrow_mut(|out| {
            out.clear();
            for part in [&queued[..]].iter().chain(parts) {
                for bytes in part.chunks(SEAL_MAX) {
                    self.tls.seal(bytes, &mut self.waiting, out)?;
                }
            }
            self.hand_over(out)
        })
    }

    /// Hands `out` to the system, behind what it has not taken before.
    fn hand_over(&mut self, out: &Outgoing) -> io::Result<()> {
        let mut bytes = out.filled();
        while self.unsent.is_empty() && !bytes.is_empty() {
            match self.tcp.try_write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is queued, until the system has taken all of it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.queued.is_empty() && !self.may_wait {
            self.send(&[])?;
        }
        while !self.unsent.is_empty() {
            match self.tcp.try_write(&self.unsent) {
                Ok(taken) => self.unsent.advance(taken),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_write_ready(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Hands what has been received to `take`, which may leave the rest for later; reads once from the system where
    /// there is nothing left. An orderly end is [`io::ErrorKind::UnexpectedEof`] as well: flows end by frames, never
    /// by the end of their connection.
    pub fn poll_pieces<A>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Pieces<'_>) -> A,
    ) -> Poll<io::Result<A>> {
        if self.more {
            let bytes = std::mem::take(&mut self.unread);
            return Poll::Ready(Ok(self.hand_out(&bytes, take)));
        }
        loop {
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let received = RECEIVING.with_borrow_mut(|receiving| {
                self.receive(receiving)?;
                Ok::<_, io::Error>(std::mem::take(&mut receiving.plain))
            });
            match received {
                Ok(plain) if plain.is_empty() => lend_back(plain),
                Ok(plain) => {
                    let taken = self.hand_out(&plain, take);
                    lend_back(plain);
                    return Poll::Ready(Ok(taken));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_read_ready(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn hand_out<A>(&mut self, bytes: &[u8], take: impl FnOnce(&mut Pieces<'_>) -> A) -> A {
        let knew = self.tells_pauses();
        let mut pieces = Pieces { decoder: &mut self.decoder, bytes, said: &mut self.said, exhausted: false };
        let taken = take(&mut pieces);
        let (rest, exhausted) = (pieces.bytes, pieces.exhausted);
        self.more = !exhausted && !rest.is_empty();
        self.unread = rest.to_vec();
        if !knew && self.tells_pauses() {
            self.set_strict(true);
        }
        taken
    }

    /// Reads once from the system. What is decrypted then, behind what could not be decoded before, is in
    /// `receiving.plain`.
    fn receive(&mut self, receiving: &mut Receiving) -> io::Result<()> {
        let Receiving { size, sealed, plain, out } = receiving;
        let before = self.waiting.len();
        let room = (*size).max(READ_FIRST);
        if sealed.len() < before + room {
            sealed.resize(before + room, 0);
        }
        let read = read_some(&self.tcp, &mut sealed[before..before + room])?;
        if read == room {
            *size = (2 * room).min(READ_SIZE);
        }
        self.ended |= read == 0;
        let end = before + read;
        sealed[..before].copy_from_slice(&self.waiting);
        plain.clear();
        plain.append(&mut self.unread);
        let unread = plain.len();
        out.clear();
        let opened = self.tls.open(&mut sealed[..end], plain, out);
        // An alert may not reach the peer, who then sees the end of the connection; a key update has to.
        let told = self.hand_over(out);
        let opened = opened.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        told?;
        let rest = &sealed[opened.consumed..end];
        if rest.len() > WAITING_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless TLS message"));
        }
        self.waiting = rest.to_vec();
        self.closed |= opened.closed;
        self.ended |= opened.closed;
        if plain.len() == unread {
            // Nothing new: there is nothing to decode.
            self.unread = plain.clone();
            plain.clear();
        }
        Ok(())
    }

    /// The next frame or piece of data.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            let event =
                ready!(self.poll_pieces(cx, |pieces| Ok::<_, io::Error>(pieces.next()?.map(Event::from))))??;
            if let Some(event) = event {
                return Poll::Ready(Ok(event));
            }
        }
    }

    /// The next frame or piece of data.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn event(&mut self) -> io::Result<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Completes when the connection breaks, also while nothing is read from it.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + use<> {
        broken(self.tcp.clone())
    }

    /// Closes at once, so that the other side notices even while it reads nothing.
    pub fn abort(self) {
        // Failing only means that the close is an ordinary one.
        let _ = self.tcp.set_zero_linger();
    }

    /// Says farewell, as far as the system takes it at once, and closes.
    pub fn close(mut self) {
        SENDING.with_borrow_mut(|out| {
            out.clear();
            self.tls.close(&mut self.waiting, out);
            // The peer sees the end of the connection in any case.
            let _ = self.hand_over(out);
        });
    }
}

/// Gives the thread its buffer back.
fn lend_back(plain: Vec<u8>) {
    RECEIVING.with_borrow_mut(|receiving| receiving.plain = plain);
}

/// Completes when `tcp` is broken (reset, unreachable), whether or not anybody reads or writes.
pub async fn broken(tcp: Arc<TcpStream>) {
    // An error means that the runtime is ending.
    let _ = tcp.ready(Interest::ERROR).await;
}
