//! TLS handshakes of both sides, over a TCP connection that is there.

use crate::{
    tunnel::{
        channel::Channel,
        tls::{Outgoing, Tls},
    },
    wire::ALPN,
};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes read at once.
const READ_SIZE: usize = 4096;
/// Most bytes that may wait for the rest of a message.
const WAITING_MAX: usize = 96 * 1024;

/// Completes the handshake of the side that connected to `address`.
///
/// # Errors
/// When the other side is not who it must be, or does not speak our protocol.
pub async fn connect(tcp: TcpStream, config: Arc<ClientConfig>, address: SocketAddr) -> io::Result<Channel> {
    // No name is sent or checked: the certificate is verified by its URI.
    let name = ServerName::from(address.ip());
    complete(tcp, Tls::client(config, name).map_err(invalid)?, address).await
}

/// Completes the handshake of the side that was connected to from `address`.
///
/// # Errors
/// When the other side is not let in, or does not speak our protocol.
pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>, address: SocketAddr) -> io::Result<Channel> {
    complete(tcp, Tls::server(config).map_err(invalid)?, address).await
}

async fn complete(mut tcp: TcpStream, mut tls: Tls, address: SocketAddr) -> io::Result<Channel> {
    let (mut waiting, mut plain, mut out) = (Vec::new(), Vec::new(), Outgoing::default());
    loop {
        let opened = tls.open(&mut waiting, &mut plain, &mut out);
        if opened.is_err() {
            // Tells the peer why, if it is there to hear it.
            let _ = tcp.try_write(out.filled());
        } else if !out.filled().is_empty() {
            tcp.write_all(out.filled()).await?;
            out.clear();
        }
        let opened = opened.map_err(invalid)?;
        waiting.drain(..opened.consumed);
        if opened.closed {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side ended the handshake"));
        }
        if opened.established {
            break;
        }
        if waiting.len() > WAITING_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the handshake is too long"));
        }
        waiting.reserve(READ_SIZE);
        if tcp.read_buf(&mut waiting).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side ended the handshake"));
        }
    }
    if tls.state().alpn_protocol() != Some(ALPN) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side does not speak our protocol"));
    }
    waiting.shrink_to_fit();
    Channel::new(tcp, tls, address, waiting, plain)
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
