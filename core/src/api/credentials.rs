//! Where key material lies, and under which keys of which object.

/// Secret with the cluster's CA, readable by the controller alone.
pub const CA_SECRET: &str = "linkspan-ca";
/// Key of [`CA_SECRET`]: the CA's certificate (PEM).
pub const CA_CERT: &str = "tls.crt";
/// Key of [`CA_SECRET`]: the CA's private key (PEM, PKCS#8).
pub const CA_KEY: &str = "tls.key";

/// Secret with what the gateways prove themselves by.
pub const GATEWAY_TLS_SECRET: &str = "linkspan-gateway-tls";
/// Key of [`GATEWAY_TLS_SECRET`]: server certificate chain (PEM), signed by this cluster's CA.
pub const SERVER_CERT: &str = "server.crt";
/// Key of [`GATEWAY_TLS_SECRET`]: private key of the server certificate (PEM, PKCS#8).
pub const SERVER_KEY: &str = "server.key";
/// Key of [`GATEWAY_TLS_SECRET`]: the one private key of all client certificates (PEM, PKCS#8).
pub const CLIENT_KEY: &str = "client.key";

/// ConfigMap with whom the gateways trust.
pub const GATEWAY_TRUST_CONFIG_MAP: &str = "linkspan-gateway-trust";
/// Key of [`GATEWAY_TRUST_CONFIG_MAP`]: this cluster's own CA bundle (PEM); callers must be signed by it.
pub const OWN_BUNDLE: &str = "own-bundle.crt";
/// Key of [`GATEWAY_TRUST_CONFIG_MAP`]: serial numbers (lower-case hex, one a line) that are denied.
pub const DENIED_SERIALS: &str = "denied-serials";

/// ConfigMap by which a cluster publishes its CA bundle to linked clusters.
pub const CA_BUNDLE_CONFIG_MAP: &str = "linkspan-ca-bundle";
/// Key of [`CA_BUNDLE_CONFIG_MAP`] and of the copies that `link` prints: CA bundle (PEM).
pub const CA_BUNDLE: &str = "ca-bundle.crt";
/// Key of [`CA_BUNDLE_CONFIG_MAP`]: the cluster's trust domain.
pub const TRUST_DOMAIN: &str = "trust-domain";

/// Type of the Secret that `link` prints.
pub const REMOTE_KUBECONFIG_TYPE: &str = "mirror.linkerd.io/remote-kubeconfig";
/// Key of that Secret.
pub const KUBECONFIG: &str = "kubeconfig";

/// Key of [`GATEWAY_TLS_SECRET`] with the client certificate chain (PEM) for link `link`, signed by the cluster
/// that the link leads to.
pub fn client_cert(link: &str) -> String {
    format!("client-{link}.crt")
}

/// The link whose client certificate lies under `key`.
pub fn link_of_client_cert(key: &str) -> Option<&str> {
    key.strip_prefix("client-")?.strip_suffix(".crt")
}

/// Key of [`GATEWAY_TRUST_CONFIG_MAP`] with the CA bundle (PEM) of the cluster behind link `link`.
pub fn peer_bundle(link: &str) -> String {
    format!("peer-{link}.crt")
}

/// The link whose CA bundle lies under `key`.
pub fn link_of_peer_bundle(key: &str) -> Option<&str> {
    key.strip_prefix("peer-")?.strip_suffix(".crt")
}
