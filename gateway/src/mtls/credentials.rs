//! What this gateway proves itself by and whom it trusts: read from PEM texts, published through a watch, so that
//! every handshake uses the newest and nothing needs a restart.

use crate::{
    mtls::{
        peer,
        verify::{CallerVerifier, GatewayVerifier},
    },
    wire::ALPN,
};
use linkspan_core::api::{
    credentials::{
        CLIENT_KEY, DENIED_SERIALS, OWN_BUNDLE, SERVER_CERT, SERVER_KEY, denied_serials, link_of_client_cert,
        link_of_peer_bundle,
    },
    identity::Identity,
};
use rustls::{
    CipherSuite, ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Texts as they lie in the Secret and the ConfigMap (or in files), by key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// Certificates and keys, by the Secret's keys; `None` until it exists.
    pub secret: Option<BTreeMap<String, Vec<u8>>>,
    /// Bundles and denied serials, by the ConfigMap's keys; `None` until it exists.
    pub trust: Option<BTreeMap<String, String>>,
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.secret.as_ref().map(|s| s.keys().collect::<Vec<_>>());
        f.debug_struct("Texts").field("secret", &keys).field("trust", &self.trust).finish()
    }
}

/// What was read from [`Texts`].
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Who we are to callers, and how they are met.
    pub server: Option<Server>,
    /// What each Link's connections need, by the Link's name.
    pub clients: BTreeMap<String, Client>,
    /// Serial numbers that are denied.
    pub denied: BTreeSet<String>,
    /// What is missing or cannot be used: one sentence each.
    pub problems: Vec<String>,
}

/// The serving side.
#[derive(Clone, Debug)]
pub struct Server {
    /// Who the certificate says we are.
    pub identity: Identity,
    /// For handshakes.
    pub config: Arc<ServerConfig>,
}

/// The calling side for one Link.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    bundle: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why a text cannot be used: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A key is missing.
    #[error("{0} is missing: the mirror controller writes it")]
    Missing(String),
    /// A text is there and is not what it should be.
    #[error("{key} cannot be used: {cause}")]
    Unusable {
        /// Where it stands.
        key: String,
        /// What is wrong.
        cause: String,
    },
}

impl Credentials {
    /// Reads all that can be used; what cannot is named in `problems` and affects nothing else.
    pub fn read(texts: &Texts) -> Self {
        let (empty_secret, empty_trust) = (BTreeMap::new(), BTreeMap::new());
        let secret = texts.secret.as_ref().unwrap_or(&empty_secret);
        let trust = texts.trust.as_ref().unwrap_or(&empty_trust);
        let mut read = Self::default();
        match read_server(secret, trust) {
            Ok(server) => read.server = Some(server),
            Err(e) => read.problems.push(e.to_string()),
        }
        for (key, certificate) in secret {
            let Some(link) = link_of_client_cert(key) else { continue };
            match read_client(link, key, certificate, secret, trust) {
                Ok(client) => {
                    read.clients.insert(link.to_owned(), client);
                }
                Err(e) => read.problems.push(e.to_string()),
            }
        }
        let (denied, others) =
            denied_serials(trust.get(DENIED_SERIALS).map(String::as_str).unwrap_or_default());
        read.denied = denied;
        read.problems.extend(others.iter().map(|line| {
            format!("{DENIED_SERIALS} has a line that is no serial number and denies nothing: {line:?}; write it in hex")
        }));
        read
    }
}

impl Client {
    /// TLS settings for connections to the gateway `expected`.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn config(&self, expected: &Identity) -> Result<ClientConfig, CredentialsError> {
        let unusable = |e: &dyn fmt::Display| CredentialsError::Unusable {
            key: "client certificate".to_owned(),
            cause: e.to_string(),
        };
        let provider = provider();
        let verifier =
            GatewayVerifier::new(roots(OWN_BUNDLE, &self.bundle)?, expected.clone(), provider.clone());
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| unusable(&e))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| unusable(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), key)
            .map_err(|e| unusable(&e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        // Resumed sessions skip the verifiers; connections live long, so a handshake is no frequent cost.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The one source of cryptography: aws-lc-rs, which prefers X25519MLKEM768 for key exchange. AES-128-GCM comes first:
/// it is as safe as the handshake around it and a fifth cheaper per byte.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn read_server(
    secret: &BTreeMap<String, Vec<u8>>,
    trust: &BTreeMap<String, String>,
) -> Result<Server, CredentialsError> {
    let missing = |key: &str| CredentialsError::Missing(key.to_owned());
    let chain = certificates(SERVER_CERT, secret.get(SERVER_CERT).ok_or_else(|| missing(SERVER_CERT))?)?;
    let key = private_key(SERVER_KEY, secret)?;
    let roots = roots(OWN_BUNDLE, trust.get(OWN_BUNDLE).ok_or_else(|| missing(OWN_BUNDLE))?)?;
    let unusable = |cause: String| CredentialsError::Unusable { key: SERVER_CERT.to_owned(), cause };
    let leaf = chain.first().ok_or_else(|| missing(SERVER_CERT))?;
    let identity = peer::read(leaf).map_err(|e| unusable(e.to_string()))?.identity;
    let verifier = CallerVerifier::new(roots, identity.trust_domain.clone(), provider())
        .map_err(|e| unusable(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| unusable(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Server { identity, config: Arc::new(config) })
}

fn read_client(
    link: &str,
    key: &str,
    certificate: &[u8],
    secret: &BTreeMap<String, Vec<u8>>,
    trust: &BTreeMap<String, String>,
) -> Result<Client, CredentialsError> {
    let chain = certificates(key, certificate)?;
    // A Link may bring its own key; the controller writes one key for all.
    let own_key = format!("client-{link}.key");
    let key_name = if secret.contains_key(&own_key) { own_key.as_str() } else { CLIENT_KEY };
    private_key(key_name, secret)?;
    let private = secret.get(key_name).cloned().unwrap_or_default();
    let bundle = trust
        .iter()
        .find(|(key, _)| link_of_peer_bundle(key) == Some(link))
        .map(|(_, text)| text.clone())
        .ok_or_else(|| CredentialsError::Missing(format!("peer-{link}.crt")))?;
    roots(&format!("peer-{link}.crt"), &bundle)?;
    Ok(Client { chain, key: private, bundle })
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let unusable = |cause: String| CredentialsError::Unusable { key: key.to_owned(), cause };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|e| unusable(e.to_string()))?;
    if chain.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(chain)
}

fn private_key(
    key: &str,
    secret: &BTreeMap<String, Vec<u8>>,
) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let pem = secret.get(key).ok_or_else(|| CredentialsError::Missing(key.to_owned()))?;
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CredentialsError::Unusable {
        key: key.to_owned(),
        cause: "it holds no private key".to_owned(),
    })
}

fn roots(key: &str, pem: &str) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates(key, pem.as_bytes())?);
    if added == 0 {
        let cause = "no certificate in it can be a root".to_owned();
        return Err(CredentialsError::Unusable { key: key.to_owned(), cause });
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::certs::Authority;

    fn texts() -> Texts {
        let (west, east) = (Authority::new("west"), Authority::new("east"));
        let (server, client) = (east.gateway("linkspan"), west.client("linkspan", "east", "u"));
        Texts {
            secret: Some(BTreeMap::from([
                (SERVER_CERT.to_owned(), server.cert_pem.into_bytes()),
                (SERVER_KEY.to_owned(), server.key_pem.into_bytes()),
                ("client-west.crt".to_owned(), client.cert_pem.into_bytes()),
                (CLIENT_KEY.to_owned(), client.key_pem.into_bytes()),
            ])),
            trust: Some(BTreeMap::from([
                (OWN_BUNDLE.to_owned(), east.pem()),
                ("peer-west.crt".to_owned(), west.pem()),
                (DENIED_SERIALS.to_owned(), "serial=0A # lost\n\nff\nbob's\n".to_owned()),
            ])),
        }
    }

    #[test]
    fn all_is_read() {
        let read = Credentials::read(&texts());
        assert_eq!(read.problems.len(), 1, "{:?}", read.problems);
        assert!(read.problems[0].contains("denies nothing: \"bob's\""), "{:?}", read.problems);
        assert_eq!(read.server.unwrap().identity.trust_domain.as_str(), "east.linkspan");
        assert_eq!(read.denied, BTreeSet::from(["a".to_owned(), "ff".to_owned()]));
        let expected = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway".parse().unwrap();
        assert!(read.clients["west"].config(&expected).is_ok());
    }

    #[test]
    fn what_is_missing_is_named_and_breaks_nothing_else() {
        let mut without_bundle = texts();
        without_bundle.trust.as_mut().unwrap().remove("peer-west.crt");
        let read = Credentials::read(&without_bundle);
        assert!(read.server.is_some() && read.clients.is_empty());
        assert_eq!(read.problems[0], "peer-west.crt is missing: the mirror controller writes it");
        let nothing = Credentials::read(&Texts::default());
        assert_eq!(nothing.problems, ["server.crt is missing: the mirror controller writes it"]);
    }

    #[test]
    fn keys_are_never_shown() {
        let texts = texts();
        let shown = format!("{texts:?} {:?}", Credentials::read(&texts));
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
