//! One TLS connection to another gateway, as frames. Everything that knows how TLS is driven is in this file.
//!
//! Reads take up to 128 KiB from the system at once into a buffer that all connections of a thread share; what a
//! connection holds for itself is what it could not use yet. Writes hand several TLS records to the system at once.

use crate::wire::{Decoder, Event, Frame};
use bytes::BytesMut;
use rustls::Connection;
use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, BufRead, IoSlice, Write},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{io::Interest, net::TcpStream};

const READ_SIZE: usize = 128 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// An established connection to another gateway. Used by one task at a time.
pub struct Channel {
    tcp: Arc<TcpStream>,
    tls: Connection,
    address: SocketAddr,
    decoder: Decoder,
    unread: BytesMut,
    closed: bool,
    clogged: bool,
    leaving: bool,
    generation: u32,
}

impl Channel {
    /// A channel over `tcp`, whose TLS handshake `tls` has completed.
    ///
    /// # Errors
    /// When the peer sent something after its handshake that is no TLS.
    pub fn new(tcp: TcpStream, mut tls: Connection, address: SocketAddr) -> io::Result<Self> {
        // What is queued is bounded by whoever queues: it reads nothing more while the channel is clogged.
        tls.set_buffer_limit(None);
        let mut channel = Self {
            tcp: Arc::new(tcp),
            tls,
            address,
            decoder: Decoder::default(),
            unread: BytesMut::new(),
            closed: false,
            clogged: false,
            leaving: false,
            generation: 0,
        };
        channel.take_plaintext()?;
        Ok(channel)
    }

    /// The other end's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number for the next flow on this connection.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Whether the last flush left something over: queue nothing more until it is gone.
    pub fn is_clogged(&self) -> bool {
        self.clogged
    }

    /// Whether the other side asked for no new flows on this connection.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Queues a frame; [`Channel::poll_flush`] sends it.
    ///
    /// # Errors
    /// When the frame is longer than the wire allows.
    pub fn queue(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = BytesMut::with_capacity(64);
        frame.encode(&mut bytes)?;
        self.queue_encoded(&bytes)
    }

    /// Queues bytes that are frames already.
    ///
    /// # Errors
    /// When TLS refuses them.
    pub fn queue_encoded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)
    }

    /// Sends what is queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Out(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.clogged = true;
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        self.clogged = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The next frame or piece of data. An orderly end is [`io::ErrorKind::UnexpectedEof`] as well: flows end by
    /// frames, never by the end of their connection.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        loop {
            if let Some(event) = self.decoder.next(&mut self.unread)? {
                self.leaving |= event == Event::Frame(Frame::GoAway);
                return Poll::Ready(Ok(event));
            }
            if self.closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_fill(cx))?;
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

    /// Says farewell and closes.
    pub async fn close(mut self) {
        self.tls.send_close_notify();
        // The peer sees the end of the connection in any case.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.flush()).await;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let read = READ_BUFFER.with_borrow_mut(|buffer| match self.tcp.try_read(buffer) {
                Ok(0) => {
                    self.closed = true;
                    Ok(())
                }
                Ok(n) => self.decrypt(&buffer[..n]),
                Err(e) => Err(e),
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.unread.is_empty() {
                        self.unread = BytesMut::new();
                    }
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn decrypt(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && !self.closed {
            self.tls.read_tls(&mut bytes)?;
            self.take_plaintext()?;
        }
        Ok(())
    }

    /// Moves what TLS has decrypted to where the decoder looks.
    fn take_plaintext(&mut self) -> io::Result<()> {
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(e) => {
                // Tells the peer why; the connection ends either way.
                let _ = self.tls.write_tls(&mut Out(&self.tcp));
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        };
        let mut left = state.plaintext_bytes_to_read();
        self.unread.reserve(left);
        while left > 0 {
            let mut reader = self.tls.reader();
            let piece = reader.fill_buf()?;
            let length = piece.len();
            self.unread.extend_from_slice(piece);
            reader.consume(length);
            left = left.saturating_sub(length.max(1));
        }
        self.closed = state.peer_has_closed();
        Ok(())
    }
}

/// Completes when `tcp` is broken (reset, unreachable), whether or not anybody reads or writes.
pub async fn broken(tcp: Arc<TcpStream>) {
    // An error means that the runtime is ending.
    let _ = tcp.ready(Interest::ERROR).await;
}

struct Out<'a>(&'a TcpStream);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
