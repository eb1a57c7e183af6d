//! The stack that kube builds by default, but for two things: names are looked up by [`Names`], and requests may share one
//! connection.

use crate::process::{
    kube_client::{ConnectError, is_named, with_causes},
    resolver::Names,
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{
        Builder, Client as HyperClient,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config, Error,
    client::{Body, ClientBuilder, ConfigExt, RustlsTlsError, retry::RetryPolicy},
};
use std::{io, net::SocketAddr, time::Duration};
use tower::{BoxError, Service, ServiceBuilder, retry::RetryLayer, service_fn};

/// Longest time until a shared connection that carries nothing back is given up, with all requests on it. It is asked for
/// a sign of life this often, and as long again an answer is waited for.
pub(super) const NOTICE: Duration = Duration::from_secs(20);
/// What a server may send ahead of what was read, of one answer and of all on a shared connection: a page of a list.
const AHEAD: (u32, u32) = (1 << 19, 1 << 20);

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    /// Each has one for itself (HTTP/1.1).
    Apart,
    /// All share one, if the server can do that (HTTP/2).
    Together,
}

/// A client for `config`.
pub(super) fn client(config: Config, requests: Requests) -> Result<Client, ConnectError> {
    let server = config.cluster_url.to_string();
    let names = if is_named(&config) { Some(Names::system()) } else { None };
    let names = names.transpose().map_err(|e| ConnectError::Client(server.clone(), e))?;
    build(config, names, requests).map_err(|e| ConnectError::Client(server, with_causes(&e)))
}

fn build(config: Config, names: Option<Names>, requests: Requests) -> kube::Result<Client> {
    // kube's default client does this itself; ours must as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let resolver = service_fn(move |name: Name| {
        let names = names.clone();
        async move {
            let names = names.ok_or_else(|| io::Error::other("a name where an address was expected"))?;
            let answer = names.lookup(name.as_str()).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(answer.addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)))
        }
    });
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    let mut connector = TimeoutConnector::new(https(&config, http, requests)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let transport = hyper().build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// What matters to connections that are shared; others do not mind.
fn hyper() -> Builder {
    let mut builder = HyperClient::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(NOTICE / 2)
        .http2_keep_alive_timeout(NOTICE / 2)
        .http2_initial_stream_window_size(AHEAD.0)
        .http2_initial_connection_window_size(AHEAD.1);
    builder
}

fn https<H>(config: &Config, http: H, requests: Requests) -> kube::Result<HttpsConnector<H>>
where
    H: Service<hyper::Uri>,
{
    let tls = config.rustls_client_config()?;
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name = name.try_into().map_err(RustlsTlsError::InvalidServerName).map_err(Error::RustlsTls)?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let builder = builder.enable_http1();
    Ok(match requests {
        Requests::Apart => builder.wrap_connector(http),
        Requests::Together => builder.enable_http2().wrap_connector(http),
    })
}
