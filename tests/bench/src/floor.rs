//! The floor: the least that a pair of proxies on tokio-rustls does. A TLS connection for each TCP connection, 16 KiB
//! buffers, nothing else.

use crate::certs;
use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const BUFFER: usize = 16 * 1024;

/// Takes plain connections at `listen` and carries each to `next` by TLS.
pub(crate) async fn egress(listen: SocketAddr, next: SocketAddr, folder: &Path, suite: &str) -> Result<()> {
    let connector = TlsConnector::from(Arc::new(certs::client_config(folder, "client", suite)?));
    serve(listen, move |plain| {
        let connector = connector.clone();
        async move {
            let tcp = connect(next).await?;
            let name = ServerName::try_from(certs::NAME)?;
            carry(plain, connector.connect(name, tcp).await?).await
        }
    })
    .await
}

/// Takes TLS connections at `listen` and carries each to `next` in the plain.
pub(crate) async fn ingress(listen: SocketAddr, next: SocketAddr, folder: &Path, suite: &str) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(certs::server_config(folder, suite)?));
    serve(listen, move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let tls = acceptor.accept(tcp).await?;
            carry(tls, connect(next).await?).await
        }
    })
    .await
}

async fn serve<F>(listen: SocketAddr, flow: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot bind {listen}"))?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let flow = flow(tcp);
        tokio::spawn(async move {
            // Both ends see by themselves how it ended.
            let _ = flow.await;
        });
    }
}

async fn connect(next: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(next).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn carry(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<()> {
    copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await?;
    Ok(())
}
