//! By which address, and trusting whom, another cluster reaches an API server, judging by a kubeconfig. Pure.

use std::net::IpAddr;

/// What a kubeconfig says of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownServer {
    /// `https://host:port`.
    pub server: String,
    /// CA (base64 of PEM).
    pub ca_data: Option<String>,
    /// Name that the certificate is checked for.
    pub tls_server_name: Option<String>,
    /// Whether the user's kubeconfig checks no certificate at all.
    pub unchecked: bool,
}

/// Where a linked cluster reaches the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// `https://host:port`.
    pub server: String,
    /// CA (base64 of PEM); absent: the system's roots.
    pub ca_data: Option<String>,
    /// Name that the certificate is checked for, where it is not the host's.
    pub tls_server_name: Option<String>,
}

/// Why no address is known: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server's address in the kubeconfig, {0}, is this machine's own, and the cluster publishes no other (EndpointSlice kubernetes in namespace default): pass --api-server-address with one that the other cluster reaches"
)]
pub struct NoAddress(pub String);

/// Chooses the address: `given` by flag, else the kubeconfig's, else, where that is a loopback address (kind,
/// minikube, tunnels), what the cluster `published` as endpoints of Service `kubernetes`.
///
/// `cluster_ca` is the CA that pods of the cluster are given; it is used where the kubeconfig names none that could
/// be trusted. API servers' certificates hold their published addresses, so these need no `tls-server-name`.
///
/// # Errors
/// When no usable address is known.
pub fn choose(
    given: Option<&str>,
    known: KnownServer,
    published: Option<(IpAddr, u16)>,
    cluster_ca: Option<String>,
) -> Result<Reachable, NoAddress> {
    let trusted = if known.unchecked { cluster_ca.clone() } else { known.ca_data };
    if let Some(given) = given {
        let server = with_scheme(given);
        return Ok(Reachable { server, ca_data: trusted, tls_server_name: None });
    }
    if !is_loopback(&known.server) {
        let (server, tls_server_name) = (known.server, known.tls_server_name);
        return Ok(Reachable { server, ca_data: trusted, tls_server_name });
    }
    let (ip, port) = published.ok_or(NoAddress(known.server))?;
    let server = format!("https://{}", std::net::SocketAddr::new(ip, port));
    Ok(Reachable { server, ca_data: trusted.or(cluster_ca), tls_server_name: None })
}

fn with_scheme(address: &str) -> String {
    let address = address.trim_end_matches('/');
    if address.contains("://") { address.to_owned() } else { format!("https://{address}") }
}

fn is_loopback(server: &str) -> bool {
    let authority = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(server: &str) -> KnownServer {
        KnownServer { server: server.into(), ca_data: Some("own".into()), ..KnownServer::default() }
    }

    #[test]
    fn loopback_is_replaced_by_what_the_cluster_publishes() {
        let published = Some(("172.18.0.2".parse().unwrap(), 6443));
        for server in
            ["https://127.0.0.1:41234", "https://localhost:1", "https://[::1]:6443", "https://0.0.0.0:1/x"]
        {
            let chosen = choose(None, known(server), published, Some("pods".into())).unwrap();
            assert_eq!(
                (chosen.server.as_str(), chosen.ca_data.as_deref()),
                ("https://172.18.0.2:6443", Some("own"))
            );
        }
        assert_eq!(
            choose(None, known("https://localhost:1"), None, None),
            Err(NoAddress("https://localhost:1".into()))
        );
        let v6 = choose(None, known("https://localhost:1"), Some(("fd00::1".parse().unwrap(), 6443)), None)
            .unwrap();
        assert_eq!(v6.server, "https://[fd00::1]:6443");
    }

    #[test]
    fn an_address_that_others_reach_is_kept_with_its_names() {
        let mut server = known("https://api.example:6443/k8s");
        server.tls_server_name = Some("inner".into());
        let chosen = choose(None, server.clone(), None, None).unwrap();
        assert_eq!(
            (chosen.server.as_str(), chosen.tls_server_name.as_deref()),
            ("https://api.example:6443/k8s", Some("inner"))
        );
        let given = choose(Some("10.0.0.1:6443"), server, None, None).unwrap();
        assert_eq!((given.server.as_str(), given.tls_server_name), ("https://10.0.0.1:6443", None));
    }

    #[test]
    fn a_kubeconfig_that_checks_nothing_is_not_passed_on() {
        let mut server = known("https://api.example");
        (server.unchecked, server.ca_data) = (true, None);
        assert_eq!(choose(None, server, None, Some("pods".into())).unwrap().ca_data.as_deref(), Some("pods"));
    }
}
