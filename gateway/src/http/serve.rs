//! One client's HTTP connection, from its first request to its last.

use crate::{
    http::{
        body::Answer,
        guard::Guard,
        pool::{HEADER_LIST, Version, WINDOWS},
        proxy::Proxy,
    },
    split::{owned::Owned, prefixed::Prefixed},
};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use linkspan_core::process::shutdown::Shutdown;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Streams that one client may have open at once.
const STREAMS: u32 = 1024;

/// From when the split is over until an HTTP/1 connection that asks nothing is closed.
const QUIET: Duration = Duration::from_secs(30);

/// Serves the connection until its end. From `closing` on it takes no new request; at `stop` it ends.
///
/// # Errors
/// Why it ended early.
pub async fn serve(
    io: Prefixed,
    version: Version,
    proxy: Arc<Proxy>,
    closing: Shutdown,
    stop: Shutdown,
) -> Result<(), String> {
    let (raw, port) = (proxy.raw.clone(), proxy.port.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let proxy = proxy.clone();
        async move { Ok::<Response<Answer>, Infallible>(Box::pin(proxy.handle(request)).await) }
    });
    match version {
        Version::One => {
            let connection = http1::Builder::new()
                .half_close(true)
                .max_buf_size(HEADER_LIST as usize)
                .serve_connection(TokioIo::new(Guard::new(io, raw)), service)
                .with_upgrades();
            let mut connection = pin!(connection);
            // Answers say that the connection closes; one that asks nothing is closed a while later.
            let left = async {
                port.over().await;
                sleep(QUIET).await;
            };
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(|e| told(&e)),
                () = closing.started() => connection.as_mut().graceful_shutdown(),
                () = left => connection.as_mut().graceful_shutdown(),
            }
            tokio::select! {
                ended = connection => ended.map_err(|e| told(&e)),
                () = stop.started() => Err("shutting down".to_owned()),
            }
        }
        Version::Two => {
            // Streams end with their connection.
            let streams = Owned::default();
            let connection = http2::Builder::new(streams)
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADER_LIST)
                .serve_connection(TokioIo::new(io), service);
            let mut connection = pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(|e| told(&e)),
                () = closing.started() => connection.as_mut().graceful_shutdown(),
                () = port.over() => connection.as_mut().graceful_shutdown(),
            }
            tokio::select! {
                ended = connection => ended.map_err(|e| told(&e)),
                () = stop.started() => Err("shutting down".to_owned()),
            }
        }
    }
}

fn told(error: &hyper::Error) -> String {
    linkspan_core::process::kube_client::with_causes(error)
}
