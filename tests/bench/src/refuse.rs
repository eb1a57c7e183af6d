//! Whom the called side of a chain refuses: who speaks no TLS, and who has a certificate of a foreign CA.

use crate::{certs, pattern};
use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A refusal must be there after this.
const ANSWER: Duration = Duration::from_secs(3);
/// Who is not refused within this is let in.
const LET_IN: Duration = Duration::from_millis(500);

/// What came of three attempts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refusals {
    /// Nothing reached the backend without TLS.
    pub(crate) plaintext: bool,
    /// A foreign certificate ended the connection.
    pub(crate) foreign: bool,
    /// The right certificate did not: the two above mean something.
    pub(crate) own_is_let_in: bool,
    /// What was agreed on.
    pub(crate) suite: String,
}

impl Refusals {
    /// Whether all is as it must be.
    pub(crate) fn sound(&self) -> bool {
        self.plaintext && self.foreign && self.own_is_let_in
    }
}

/// Makes the attempts at `address`.
///
/// # Errors
/// When nobody listens there.
pub(crate) async fn attempt(
    address: SocketAddr,
    folder: &Path,
    suite: &str,
    alpn: Option<&str>,
) -> Result<Refusals> {
    let own = client(address, folder, "client", suite, alpn).await?;
    let foreign = client(address, folder, "foreign", suite, alpn).await?;
    Ok(Refusals {
        plaintext: plaintext(address).await?,
        foreign: foreign.is_none(),
        own_is_let_in: own.is_some(),
        suite: own.unwrap_or_default(),
    })
}

async fn plaintext(address: SocketAddr) -> Result<bool> {
    for first in [&crate::backend::Request::Echo { bytes: 64 }.encode()[..], crate::http::GET] {
        let mut tcp = TcpStream::connect(address).await.with_context(|| format!("nobody at {address}"))?;
        let (mut answer, payload) = (Vec::new(), pattern::piece(0, 64));
        // The end, a reset or silence are all refusals; what counts is that nothing of the backend comes back.
        let _ = tcp.write_all(&[first, payload].concat()).await;
        let _ = timeout(LET_IN, tcp.read_to_end(&mut answer)).await;
        if answer.windows(payload.len()).any(|w| w == payload) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The cipher suite when the certificate was let in.
async fn client(
    address: SocketAddr,
    folder: &Path,
    name: &str,
    suite: &str,
    alpn: Option<&str>,
) -> Result<Option<String>> {
    let mut config = certs::client_config(folder, name, suite)?;
    config.alpn_protocols = alpn.map(|a| a.as_bytes().to_vec()).into_iter().collect();
    let tcp = TcpStream::connect(address).await.with_context(|| format!("nobody at {address}"))?;
    let connector = TlsConnector::from(Arc::new(config));
    let handshake = timeout(ANSWER, connector.connect(ServerName::try_from(certs::NAME)?, tcp)).await;
    let Ok(Ok(mut tls)) = handshake else { return Ok(None) };
    let suite =
        tls.get_ref().1.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or_default();
    // In TLS 1.3 a client learns after its handshake what was thought of its certificate.
    let mut answer = [0; 64];
    match timeout(if name == "client" { LET_IN } else { ANSWER }, tls.read(&mut answer)).await {
        Ok(Ok(0) | Err(_)) => Ok(None),
        Ok(Ok(_)) | Err(_) => Ok(Some(suite.replacen("TLS13_", "TLS_", 1))),
    }
}
