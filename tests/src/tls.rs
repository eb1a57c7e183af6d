//! Throw-away certificates for the test servers.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{net::IpAddr, sync::Arc};

/// A CA of one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server certificate with its key.
pub struct ServerCertificate {
    /// The certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM, PKCS#8).
    pub key: String,
    der: CertificateDer<'static>,
    key_der: PrivateKeyDer<'static>,
}

impl Authority {
    /// A new CA whose subject is `name`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?);
        Ok(Self(issuer.context("cannot make a CA")?))
    }

    /// Its certificate (PEM).
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server on these addresses.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn server(&self, addresses: &[IpAddr]) -> Result<ServerCertificate> {
        let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        self.sign(CertificateParams::new(names)?)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<ServerCertificate> {
        let key = KeyPair::generate()?;
        params.distinguished_name.push(DnType::CommonName, "test server");
        let certificate = params.signed_by(&key, &self.0).context("cannot sign a certificate")?;
        Ok(ServerCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A certificate for the gateway `uri`.
    ///
    /// # Errors
    /// When `uri` is none, or the system has no randomness to give.
    pub fn gateway(&self, uri: &str) -> Result<ServerCertificate> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        self.sign(params)
    }

    /// TLS for a client that trusts this CA alone.
    ///
    /// # Errors
    /// When rustls refuses the CA's certificate.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl ServerCertificate {
    /// TLS for a server with this certificate that speaks HTTP/1.1.
    ///
    /// # Errors
    /// When rustls refuses the certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = builder.with_no_client_auth();
        let mut config = builder.with_single_cert(vec![self.der.clone()], self.key_der.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
