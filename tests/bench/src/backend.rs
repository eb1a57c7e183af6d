//! What lies behind all chains: sends, takes or echoes a payload, or answers HTTP.
//!
//! A connection begins with a [`Request`], or with `GET`.

use crate::{http, pattern};
use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant, sleep_until},
};

/// Bytes of an encoded request.
pub(crate) const REQUEST: usize = 16;

/// What the backend shall do on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send so many bytes, at most `pace` KiB a second unless that is 0, then end.
    Down { bytes: u64, pace: u32 },
    /// Take so many bytes, then say so by one byte.
    Up { bytes: u64 },
    /// Send back every message of so many bytes.
    Echo { bytes: u64 },
}

impl Request {
    /// As it is sent.
    pub(crate) fn encode(self) -> [u8; REQUEST] {
        let (kind, bytes, pace) = match self {
            Self::Down { bytes, pace } => (b'D', bytes, pace),
            Self::Up { bytes } => (b'U', bytes, 0),
            Self::Echo { bytes } => (b'E', bytes, 0),
        };
        let mut out = [0; REQUEST];
        out[0] = kind;
        out[4..8].copy_from_slice(&pace.to_be_bytes());
        out[8..].copy_from_slice(&bytes.to_be_bytes());
        out
    }

    fn decode(bytes: [u8; REQUEST]) -> Result<Self> {
        let [kind, _, _, _, p0, p1, p2, p3, rest @ ..] = bytes;
        let (bytes, pace) = (u64::from_be_bytes(rest), u32::from_be_bytes([p0, p1, p2, p3]));
        Ok(match kind {
            b'D' => Self::Down { bytes, pace },
            b'U' => Self::Up { bytes },
            b'E' => Self::Echo { bytes },
            other => bail!("no request begins with {other}"),
        })
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot bind {listen}"))?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that leaves in the middle of something is noticed by its own check.
            let _ = answer(tcp).await;
        });
    }
}

async fn answer(mut tcp: TcpStream) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut first = [0; REQUEST];
    if tcp.read_exact(&mut first).await.is_err() {
        return Ok(());
    }
    if first.starts_with(b"GET ") {
        return http::answer(tcp, &first).await;
    }
    match Request::decode(first)? {
        Request::Down { bytes, pace } => send(&mut tcp, bytes, pace).await,
        Request::Up { bytes } => {
            take(&mut tcp, bytes).await?;
            Ok(tcp.write_all(b"!").await?)
        }
        Request::Echo { bytes } => {
            let mut message = vec![0; bytes as usize];
            while tcp.read_exact(&mut message).await.is_ok() {
                tcp.write_all(&message).await?;
            }
            Ok(())
        }
    }
}

async fn send(tcp: &mut TcpStream, bytes: u64, pace: u32) -> Result<()> {
    let (mut sent, began) = (0, Instant::now());
    let most = if pace == 0 { pattern::PIECE } else { 16 * 1024 };
    while sent < bytes {
        if pace > 0 {
            sleep_until(began + Duration::from_secs_f64(sent as f64 / 1024.0 / f64::from(pace))).await;
        }
        let length = most.min((bytes - sent) as usize);
        tcp.write_all(pattern::piece(sent, length)).await?;
        sent += length as u64;
    }
    Ok(tcp.shutdown().await?)
}

async fn take(tcp: &mut TcpStream, bytes: u64) -> Result<()> {
    let (mut taken, mut buffer) = (0, vec![0; pattern::PIECE]);
    while taken < bytes {
        let length = tcp.read(&mut buffer).await?;
        ensure!(length > 0 && pattern::is(taken, &buffer[..length]), "the payload is damaged at {taken}");
        taken += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for request in
            [Request::Down { bytes: 1 << 40, pace: 7 }, Request::Up { bytes: 3 }, Request::Echo { bytes: 64 }]
        {
            assert_eq!(Request::decode(request.encode()).unwrap(), request);
        }
        assert!(Request::decode([b'X'; REQUEST]).is_err());
    }
}
