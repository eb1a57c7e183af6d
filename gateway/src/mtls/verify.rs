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
