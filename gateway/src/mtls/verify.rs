//! Verifies certificates by rustls' own verifiers against a bundle, and their owners by SPIFFE URI. Host names and
//! addresses play no part: a changed load balancer invalidates nothing.

use crate::mtls::peer::{self, PeerError};
use linkspan_core::api::{
    identity::{Identity, TrustDomain},
    reason::Reason,
};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{io, sync::Arc};

/// Lets a caller talk to exactly one gateway identity.
#[derive(Debug)]
pub struct GatewayVerifier {
    roots: RootCertStore,
    expected: Identity,
    provider: Arc<CryptoProvider>,
}

impl GatewayVerifier {
    /// Accepts `expected` when signed by one of `roots`.
    pub fn new(roots: RootCertStore, expected: Identity, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, expected, provider }
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        );
        let owner = peer::expect_gateway(end_entity, &self.expected);
        match (chain, owner) {
            (Ok(()), Ok(_)) => Ok(ServerCertVerified::assertion()),
            // Another cluster has another CA: what its certificate claims only serves to name the mistake.
            (_, Err(e)) if e.reason() == Reason::WrongCluster => Err(other(e)),
            (Err(e), _) => Err(e),
            (Ok(()), Err(e)) => Err(other(e)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Lets in whoever proves an identity of our own trust domain. What that caller may do is asked per flow.
#[derive(Debug)]
pub struct CallerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl CallerVerifier {
    /// Accepts identities of `trust_domain` when signed by one of `roots`.
    ///
    /// # Errors
    /// When `roots` is empty.
    pub fn new(
        roots: RootCertStore,
        trust_domain: TrustDomain,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .clear_root_hint_subjects()
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        Ok(Self { chain, trust_domain })
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let peer = peer::read(end_entity).map_err(other)?;
        if peer.identity.trust_domain != self.trust_domain {
            return Err(other(PeerError::Other {
                found: peer.identity,
                expected: format!("an account of {}", self.trust_domain),
                wrong_cluster: false,
            }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn other(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The word for what went wrong on a connection to a gateway.
pub fn reason_of(error: &io::Error) -> Reason {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (tls, error.kind()) {
        (Some(tls), _) => reason_of_tls(tls),
        (None, io::ErrorKind::ConnectionRefused) => Reason::Refused,
        (None, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => Reason::Protocol,
        (None, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Reason::Refused,
        (None, _) => Reason::Timeout,
    }
}

fn reason_of_tls(error: &Error) -> Reason {
    match error {
        Error::InvalidCertificate(CertificateError::Other(inner)) => {
            inner.0.downcast_ref::<PeerError>().map_or(Reason::TlsTrust, PeerError::reason)
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )
        | Error::AlertReceived(AlertDescription::CertificateExpired) => Reason::TlsExpired,
        Error::InvalidCertificate(_)
        | Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            Reason::TlsTrust
        }
        Error::NoCertificatesPresented
        | Error::AlertReceived(
            AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => Reason::Identity,
        _ => Reason::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::certs::{Authority, Leaf};
    use rustls::crypto::aws_lc_rs;

    fn roots(authority: &Authority) -> RootCertStore {
        let mut store = RootCertStore::empty();
        let pem = authority.pem();
        store.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        store
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(aws_lc_rs::default_provider())
    }

    /// 2026-01-01.
    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_767_225_600))
    }

    fn reason(result: Result<(), Error>) -> Option<Reason> {
        result.err().map(|e| reason_of(&io::Error::other(e)))
    }

    fn caller(authority: &Authority, leaf: &Leaf) -> Option<Reason> {
        let own = "west.linkspan".parse().unwrap();
        let verifier = CallerVerifier::new(roots(authority), own, provider()).unwrap();
        let verified = verifier.verify_client_cert(&CertificateDer::from(leaf.der.clone()), &[], now());
        reason(verified.map(|_| ()))
    }

    #[test]
    fn callers_are_verified_by_chain_time_and_trust_domain() {
        let (west, north) = (Authority::new("west"), Authority::new("north"));
        assert_eq!(caller(&west, &west.client("linkspan", "east", "u")), None);
        assert_eq!(caller(&west, &north.client("linkspan", "east", "u")), Some(Reason::TlsTrust));
        assert_eq!(caller(&west, &west.expired_client("linkspan", "east", "u")), Some(Reason::TlsExpired));
        let foreign = west.leaf(&["spiffe://north.linkspan/ns/linkspan/sa/east"]);
        assert_eq!(caller(&west, &foreign), Some(Reason::Identity));
        assert_eq!(caller(&west, &west.leaf(&[])), Some(Reason::Identity));
    }

    #[test]
    fn gateways_are_verified_by_chain_and_uri_and_other_clusters_are_told_apart() {
        let (west, north) = (Authority::new("west"), Authority::new("north"));
        let expected: Identity = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway".parse().unwrap();
        let verifier = GatewayVerifier::new(roots(&west), expected, provider());
        let name = ServerName::from(std::net::IpAddr::from([10, 0, 0, 1]));
        let check = |leaf: &Leaf| {
            let certificate = CertificateDer::from(leaf.der.clone());
            reason(verifier.verify_server_cert(&certificate, &[], &name, &[], now()).map(|_| ()))
        };
        assert_eq!(check(&west.gateway("linkspan")), None);
        assert_eq!(check(&north.gateway("linkspan")), Some(Reason::WrongCluster));
        assert_eq!(check(&west.client("linkspan", "east", "u")), Some(Reason::Identity));
        let pretender = north.leaf(&["spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway"]);
        assert_eq!(check(&pretender), Some(Reason::TlsTrust));
    }
}
