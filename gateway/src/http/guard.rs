//! A client's connection with [`Scanner`] before hyper: what is refused reaches hyper as bytes that it refuses too, so
//! that it answers 400 and closes. A head that does not end in time ends the connection.

use crate::http::strict::Scanner;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Longest time from the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What no parser takes, at whatever place of a request it comes.
const POISON: &[u8] = b"\0\r\n\r\n";

/// Told once a connection speaks something else than HTTP.
#[derive(Clone, Debug, Default)]
pub struct Raw(Arc<AtomicBool>);

impl Raw {
    /// From now on the bytes are no requests.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The guarded connection.
pub struct Guard<T> {
    io: T,
    scanner: Scanner,
    raw: Raw,
    refused: bool,
    late: Option<Pin<Box<Sleep>>>,
}

impl<T> Guard<T> {
    /// Guards `io` until `raw` is set.
    pub fn new(io: T, raw: Raw) -> Self {
        Self { io, scanner: Scanner::default(), raw, refused: false, late: None }
    }

    /// Whether the head under way has taken too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.scanner.in_head() {
            self.late = None;
            return false;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(HEAD_TIMEOUT)));
        late.as_mut().poll(cx).is_ready()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused {
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, into) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending if self.is_late(cx) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => return other,
        }
        if self.raw.0.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        if let Err(refused) = self.scanner.feed(&into.filled()[before..]) {
            self.refused = true;
            into.set_filled(before + refused.fine);
            let room = into.remaining().min(POISON.len());
            into.put_slice(&POISON[..room]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_becomes_what_nobody_takes() {
        let (mut client, server) = duplex(1024);
        let mut guard = Guard::new(server, Raw::default());
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n").await.unwrap();
        let mut read = [0; 256];
        let length = guard.read(&mut read).await.unwrap();
        assert_eq!(guard.read(&mut read[length..]).await.unwrap(), 0, "nothing comes after that");
        assert_eq!(read[..length], *b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\0\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_ends_in_time_but_between_heads_there_is_none() {
        let (mut client, server) = duplex(1024);
        let mut guard = Guard::new(server, Raw::default());
        let mut bytes = [0; 64];
        assert!(tokio::time::timeout(HEAD_TIMEOUT * 100, guard.read(&mut bytes)).await.is_err());
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        assert_eq!(guard.read(&mut bytes).await.unwrap(), 18);
        let late = guard.read(&mut bytes).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_is_no_http_any_more_passes() {
        let (mut client, server) = duplex(1024);
        let raw = Raw::default();
        let mut guard = Guard::new(server, raw.clone());
        raw.set();
        client.write_all(b"anything\n").await.unwrap();
        let mut bytes = [0; 9];
        guard.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"anything\n");
    }
}
