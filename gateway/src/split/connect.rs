//! Reaches a backend: one of this cluster's pods, or a Service of a linked cluster through the tunnel.

use crate::{
    ingress::{
        choose::Candidate,
        connect::{Backends, Load, connect},
    },
    split::owned::Owned,
    tunnel::{links::Pools, stream::TunnelStream},
};
use linkspan_core::api::{reason::Reason, split::Remote};
use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection to a backend.
pub enum Upstream {
    /// To a pod of this cluster; counted among its flows.
    Pod(TcpStream, Box<Load>),
    /// Through a tunnel.
    Tunnel(Box<TunnelStream>),
}

/// What connecting takes.
#[derive(Clone)]
pub struct Connector {
    /// Connections by Link.
    pub pools: Pools,
    /// Flows by endpoint, and endpoints that did not answer.
    pub backends: Backends,
    /// Who looks after flows that have ended.
    pub tasks: Owned,
}

impl Connector {
    /// Connects to one of `endpoints`.
    ///
    /// # Errors
    /// When none of those tried answers.
    pub async fn pod(&self, endpoints: Vec<SocketAddr>) -> Result<Upstream, (Reason, String)> {
        let candidates = endpoints.into_iter().map(|address| Candidate { address, near: false });
        let (tcp, load) = connect(candidates.collect(), &self.backends, || {}).await?;
        Ok(Upstream::Pod(tcp, Box::new(load)))
    }

    /// Opens a flow to `remote`, on behalf of the caller that `baggage` names.
    ///
    /// # Errors
    /// When it is not carried.
    pub async fn remote(&self, remote: &Remote, baggage: &str) -> Result<Upstream, (Reason, String)> {
        let pool = self.pools.get(&remote.link).ok_or((Reason::NoCredentials, "no such Link".to_owned()))?;
        let stream = TunnelStream::open(&pool, &remote.target, baggage, &self.tasks).await?;
        Ok(Upstream::Tunnel(Box::new(stream)))
    }
}

impl AsyncRead for Upstream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pod(tcp, _) => Pin::new(tcp).poll_read(cx, into),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pod(tcp, _) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pod(tcp, _) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pod(tcp, _) => Pin::new(tcp).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pod(tcp, _) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
