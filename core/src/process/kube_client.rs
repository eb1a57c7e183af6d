//! Connections to Kubernetes API servers: this cluster's, and linked ones' by the kubeconfig in a Secret.
//!
//! Host names are looked up by [`Names`], never by libc: our executables are static.

use crate::{api::labels::FIELD_MANAGER, process::resolver::Names};
use hyper_util::{
    client::legacy::{
        Client as HyperClient,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    api::PatchParams,
    client::{Body, ClientBuilder, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tower::{BoxError, ServiceBuilder, service_fn, util::MapFutureLayer};

/// Longest time a connection to an API server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach an API server, as given by flags.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Path of a kubeconfig; absent: `$KUBECONFIG`, else the user's own.
    pub kubeconfig: Option<PathBuf>,
    /// Context in it; absent: the current one.
    pub context: Option<String>,
    /// User to act as.
    pub impersonate: Option<String>,
    /// Groups to act as.
    pub impersonate_groups: Vec<String>,
    /// Longest time an answer may take to begin; absent: no limit.
    pub request_timeout: Option<Duration>,
}

/// Why an API server cannot be reached: one sentence that names the thing, the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig cannot be used: {0}; check --kubeconfig, --context and $KUBECONFIG")]
    Kubeconfig(String),
    /// Not in a cluster, and no kubeconfig was named.
    #[error("not running in a cluster ({0}); name a kubeconfig with --kubeconfig or --context")]
    InCluster(String),
    /// A kubeconfig from a Secret that would run programs or read files here.
    #[error(
        "the kubeconfig in the Secret holds {0}, which is not accepted; use a token or certificates written into it"
    )]
    NotSelfContained(&'static str),
    /// The TLS settings or the connector cannot be built.
    #[error("no connection to {0} can be prepared: {1}")]
    Client(String, String),
}

/// The configuration of a command-line tool: the kubeconfig that `kubectl` would use with the same flags.
///
/// # Errors
/// When there is no such kubeconfig or context.
pub async fn config_of_user(options: &ConnectOptions) -> Result<Config, ConnectError> {
    let wrong = |e: &dyn std::error::Error| ConnectError::Kubeconfig(with_causes(e));
    let chosen = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
            Config::from_custom_kubeconfig(kubeconfig, &chosen).await
        }
        None => Config::from_kubeconfig(&chosen).await,
    };
    Ok(apply(config.map_err(|e| wrong(&e))?, options))
}

/// The configuration of a daemon: the pod's own account, unless a kubeconfig or context is named.
///
/// # Errors
/// When neither can be used.
pub async fn config_of_daemon(options: &ConnectOptions) -> Result<Config, ConnectError> {
    if options.kubeconfig.is_some() || options.context.is_some() {
        return config_of_user(options).await;
    }
    let config = Config::incluster().map_err(|e| ConnectError::InCluster(with_causes(&e)))?;
    Ok(apply(config, options))
}

/// The configuration that `kubeconfig` (YAML out of a Secret) describes. Nothing in it may run a program or read a
/// file of this machine.
///
/// # Errors
/// When it cannot be read, or is not self-contained.
pub async fn config_of_secret(kubeconfig: &str) -> Result<Config, ConnectError> {
    let kubeconfig =
        Kubeconfig::from_yaml(kubeconfig).map_err(|e| ConnectError::Kubeconfig(with_causes(&e)))?;
    if let Some(what) = outside_reference(&kubeconfig) {
        return Err(ConnectError::NotSelfContained(what));
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Ok(apply(config.map_err(|e| ConnectError::Kubeconfig(with_causes(&e)))?, &ConnectOptions::default()))
}

fn outside_reference(kubeconfig: &Kubeconfig) -> Option<&'static str> {
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        let found = [
            (user.exec.is_some(), "an exec command"),
            (user.auth_provider.is_some(), "an auth provider"),
            (user.token_file.is_some(), "a token file"),
            (user.client_certificate.is_some(), "a client certificate file"),
            (user.client_key.is_some(), "a client key file"),
        ];
        if let Some((_, what)) = found.into_iter().find(|(there, _)| *there) {
            return Some(what);
        }
    }
    let mut clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters.any(|cluster| cluster.certificate_authority.is_some()).then_some("a certificate authority file")
}

fn apply(mut config: Config, options: &ConnectOptions) -> Config {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    if options.request_timeout.is_some() {
        config.read_timeout = options.request_timeout;
        config.reset_reader_on_write = true;
    }
    if options.impersonate.is_some() {
        config.auth_info.impersonate.clone_from(&options.impersonate);
    }
    if !options.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(options.impersonate_groups.clone());
    }
    config
}

/// A client for `config`.
///
/// # Errors
/// When TLS settings or credentials in it cannot be used.
pub fn client(config: Config) -> Result<Client, ConnectError> {
    client_within(config, None)
}

/// As [`client`]; every answer begins within `limit`, however often kube asks again by itself: 15 times, over minutes,
/// where a server answers 429, 503 or 504.
///
/// # Errors
/// As [`client`].
pub fn client_within(config: Config, limit: Option<Duration>) -> Result<Client, ConnectError> {
    let server = config.cluster_url.to_string();
    let wrong = |e: &dyn std::error::Error| ConnectError::Client(server.clone(), with_causes(e));
    let named = config
        .cluster_url
        .host()
        .is_some_and(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err());
    if !named || config.proxy_url.is_some() {
        let builder = ClientBuilder::try_from(config).map_err(|e| wrong(&e))?;
        return Ok(builder.with_layer(&MapFutureLayer::new(move |answer| within(limit, answer))).build());
    }
    let names = Names::system().map_err(|e| ConnectError::Client(server.clone(), e))?;
    client_by_name(config, names, limit).map_err(|e| wrong(&e))
}

/// A patch in our name: the API server notes who wrote which field.
pub fn as_manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The stack that kube builds by default, on a connector that looks names up by `names`.
fn client_by_name(config: Config, names: Names, limit: Option<Duration>) -> kube::Result<Client> {
    let resolver = service_fn(move |name: Name| {
        let names = names.clone();
        async move {
            let answer = names.lookup(name.as_str()).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(answer.addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)))
        }
    });
    // kube's default client does this itself; ours must as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    let mut connector =
        hyper_timeout::TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let transport = HyperClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .map_future(move |answer| within(limit, answer))
        .layer(config.base_uri_layer())
        .layer(config.extra_headers_layer()?)
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

async fn within<T>(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let Some(limit) = limit else { return answer.await };
    let late = |_| format!("no answer within {:.1} s", limit.as_secs_f64());
    tokio::time::timeout(limit, answer).await.map_err(late)?
}

/// An error with its causes, outermost first, as one line; of a text that goes on below, its first line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let first_line =
        |error: &dyn std::error::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let mut text = first_line(error);
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = first_line(inner);
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF_CONTAINED: &str = r"
apiVersion: v1
kind: Config
clusters: [{name: west, cluster: {server: 'https://10.0.0.1:6443'}}]
contexts: [{name: west, context: {cluster: west, user: west}}]
current-context: west
users: [{name: west, user: {token: t}}]
";

    #[tokio::test]
    async fn a_kubeconfig_from_a_secret_must_be_self_contained() {
        let config = config_of_secret(SELF_CONTAINED).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("10.0.0.1"));
        for (good, bad, told) in [
            (
                "token: t",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}",
                "an exec command",
            ),
            ("token: t", "tokenFile: /etc/passwd", "a token file"),
            ("{server:", "{certificate-authority: /ca.crt, server:", "a certificate authority file"),
        ] {
            let text = SELF_CONTAINED.replace(good, bad);
            let error = config_of_secret(&text).await.unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
        let error = config_of_secret("clusters: 7").await.unwrap_err();
        assert!(matches!(error, ConnectError::Kubeconfig(_)), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_context_is_told_with_the_flag_that_mends_it() {
        let path = std::env::temp_dir().join(format!("linkspan-kubeconfig-{}", std::process::id()));
        std::fs::write(&path, SELF_CONTAINED).unwrap();
        let options = ConnectOptions {
            kubeconfig: Some(path.clone()),
            context: Some("nowhere".into()),
            ..ConnectOptions::default()
        };
        let error = config_of_user(&options).await.unwrap_err().to_string();
        std::fs::remove_file(path).unwrap();
        assert!(error.contains("nowhere") && error.contains("--context"), "{error}");
    }
}
