//! The admin port: `/live`, `/ready`, `/metrics`, and what else a part answers.

use crate::process::{readiness::Readiness, shutdown::Shutdown};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Body of an answer: whole, or a stream.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A part's own routes: an answer, or `None` for a path it does not know.
pub type Routes = Arc<dyn Fn(&Request<Incoming>) -> Option<Response<Body>> + Send + Sync>;

/// Who asks: an extension of each request that [`Routes`] see.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Connections served at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 128;
/// Longest time a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything the admin port can say.
#[derive(Clone)]
pub struct Admin {
    /// What `/ready` reports.
    pub readiness: Readiness,
    /// What `/metrics` encodes.
    pub metrics: Arc<Registry>,
    /// What else there is.
    pub routes: Routes,
}

/// A whole answer.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer with status 200.
pub fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(e) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{e}\n")),
    }
}

/// A streamed answer of newline-delimited JSON: each item is one line or more.
pub fn lines(items: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = items.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Binds `address`; where the machine has no IPv6 and `address` is `[::]`, binds `0.0.0.0` instead.
///
/// # Errors
/// One sentence that names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(v4).await.map_err(|e| format!("cannot listen on {v4}: {e}"))
        }
        other => other.map_err(|e| format!("cannot listen on {address}: {e}")),
    }
}

/// Serves until the stop begins; streams that are open then are cut.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned();
        let accepted = tokio::select! {
            () = shutdown.started() => return,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async { (slot.await, listener.accept().await) } => accepted,
        };
        if let (Ok(slot), Ok((stream, from))) = accepted {
            let admin = admin.clone();
            connections.spawn(async move {
                serve_connection(stream, from, admin).await;
                drop(slot);
            });
        } else {
            // Out of file descriptors or the like: give the system a moment instead of spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve_connection(stream: TcpStream, from: SocketAddr, admin: Admin) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(from));
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(respond(&request, &admin)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn respond(request: &Request<Incoming>, admin: &Admin) -> Response<Body> {
    if let Some(response) = (admin.routes)(request) {
        return response;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n");
    }
    match request.uri().path() {
        "/live" => answer(StatusCode::OK, "text/plain", "live\n"),
        "/ready" => ready(&admin.readiness),
        "/metrics" => metrics(&admin.metrics),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "no such page: try /live /ready /metrics /links\n"),
    }
}

fn ready(readiness: &Readiness) -> Response<Body> {
    let pending = readiness.pending();
    if pending.is_empty() {
        return answer(StatusCode::OK, "text/plain", "ready\n");
    }
    let lines: Vec<String> = pending.iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
    answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", lines.concat())
}

fn metrics(registry: &Registry) -> Response<Body> {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => answer(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Err(e) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{e}\n")),
    }
}

#[cfg(test)]
mod tests;
