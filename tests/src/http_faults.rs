//! The half of the fault proxy that understands HTTP: it ends TLS, may answer requests itself, and notes them all.

use crate::{
    relay::Background,
    tls::{Authority, ServerCertificate},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How many requests are remembered.
const REMEMBERED: usize = 100_000;

/// One request that came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method, e.g. `PATCH`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Status of the answer, the injected ones included.
    pub status: u16,
}

/// Requests that are answered with an error instead of being carried.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) left: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) failures: Vec<Failure>,
    pub(crate) seen: Vec<Seen>,
}

/// The proxy, on a loopback port of its own.
#[derive(Debug)]
pub(crate) struct HttpFaults {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    upstream: Arc<Mutex<SocketAddr>>,
    _background: Background,
}

type Body = Either<Incoming, Full<Bytes>>;

impl HttpFaults {
    pub(crate) fn start(
        authority: &Authority,
        certificate: &ServerCertificate,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let background = Background::new()?;
        let bound = std::net::TcpListener::bind("127.0.0.1:0").context("cannot bind a loopback port")?;
        bound.set_nonblocking(true)?;
        let address = bound.local_addr()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let upstream = Arc::new(Mutex::new(upstream));
        let proxy = Proxy {
            tls: TlsAcceptor::from(certificate.server_config()?),
            client: authority.client_config()?,
            script: script.clone(),
            upstream: upstream.clone(),
        };
        background.run(async move {
            match TcpListener::from_std(bound) {
                Ok(listener) => proxy.serve(listener).await,
                Err(error) => eprintln!("the fault proxy on {address} cannot listen: {error}"),
            }
        });
        Ok(Self { address, script, upstream, _background: background })
    }

    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *lock(&self.upstream) = upstream;
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }
}

#[derive(Clone)]
struct Proxy {
    tls: TlsAcceptor,
    client: Arc<ClientConfig>,
    script: Arc<Mutex<Script>>,
    upstream: Arc<Mutex<SocketAddr>>,
}

impl Proxy {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let proxy = self.clone();
                        // A connection that fails is closed; that is all its client would see of a real server.
                        connections.spawn(async move { proxy.connection(stream).await.ok() });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Serves one connection over one connection to the real server: where that is gone, this one ends too.
    async fn connection(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let stream = self.tls.accept(stream).await?;
        let upstream = *lock(&self.upstream);
        let server = TcpStream::connect(upstream).await?;
        server.set_nodelay(true)?;
        let name = ServerName::IpAddress(upstream.ip().into());
        let server = TlsConnector::from(self.client.clone()).connect(name, server).await?;
        let (sender, carrier) = hyper::client::conn::http1::handshake(TokioIo::new(server)).await?;
        let sender = tokio::sync::Mutex::new(sender);
        let service = service_fn(|request| async {
            let mut sender = sender.lock().await;
            self.answer(&mut sender, request).await
        });
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = serving => served?,
            carried = carrier => carried?,
        }
        Ok(())
    }

    async fn answer(
        &self,
        sender: &mut SendRequest<Incoming>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, hyper::Error> {
        let method = request.method().to_string();
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let injected = lock(&self.script).take(&method, &path);
        let response = match injected {
            Some(status) => {
                // The body is read to its end, so that the connection can go on.
                request.into_body().collect().await?;
                refusal(status)
            }
            None => sender.send_request(request).await?.map(Either::Left),
        };
        lock(&self.script).note(Seen { method, path, status: response.status().as_u16() });
        Ok(response)
    }
}

impl Script {
    /// The status to answer a request with, if one is asked for.
    fn take(&mut self, method: &str, path: &str) -> Option<StatusCode> {
        let hit = |f: &&mut Failure| {
            f.left > 0 && (f.method.is_empty() || f.method == method) && path.contains(&f.path)
        };
        let failure = self.failures.iter_mut().find(hit)?;
        failure.left -= 1;
        Some(failure.status)
    }

    fn note(&mut self, seen: Seen) {
        if self.seen.len() < REMEMBERED {
            self.seen.push(seen);
        }
    }
}

/// An error in the form in which a Kubernetes API gives it.
fn refusal(status: StatusCode) -> Response<Body> {
    let reason = match status.as_u16() {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected by the test", "reason": reason, "code": status.as_u16(),
    });
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole after every statement, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_hits_what_it_names_as_often_as_asked() {
        let failure = |method: &str, path: &str, left| Failure {
            method: method.into(),
            path: path.into(),
            status: StatusCode::CONFLICT,
            left,
        };
        let mut script = Script { failures: vec![failure("PUT", "/services/", 2)], seen: vec![] };
        assert_eq!(script.take("GET", "/api/v1/services/a"), None);
        assert_eq!(script.take("PUT", "/api/v1/pods/a"), None);
        assert_eq!(script.take("PUT", "/api/v1/services/a"), Some(StatusCode::CONFLICT));
        assert_eq!(script.take("PUT", "/api/v1/services/b"), Some(StatusCode::CONFLICT));
        assert_eq!(script.take("PUT", "/api/v1/services/a"), None);
        script.failures.push(failure("", "", 1));
        assert_eq!(script.take("GET", "/"), Some(StatusCode::CONFLICT));
    }
}
