//! One set of certificates for all chains.

use anyhow::{Context, Result};
use linkspan_core::api::identity::UID_ATTRIBUTE;
use linkspan_tests::scratch::Scratch;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};

/// The name in the called side's certificate.
pub(crate) const NAME: &str = "gateway.bench";
/// The called side's identity as our gateways know it.
pub(crate) const IDENTITY: &str = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway";
/// The calling side's account and its uid.
pub(crate) const ACCOUNT: (&str, &str) = ("east", "uid-1");

/// Writes them to `folder`, each as `.crt`, `.key` and both together as `.pem`: `server` and `client`, signed by the
/// CA `ca`; `own`, which our calling gateway has for callers of its own, signed by `own-ca`; and `foreign`, a client
/// whose CA nobody trusts but who says the same of himself.
pub(crate) fn write(folder: &Scratch) -> Result<()> {
    let (ca, own, foreign) = (authority("west")?, authority("east")?, authority("west")?);
    let client = format!("spiffe://west.linkspan/ns/linkspan/sa/{}", ACCOUNT.0);
    leaf(folder, "server", &ca, IDENTITY, None)?;
    leaf(folder, "client", &ca, &client, Some(ACCOUNT))?;
    leaf(folder, "own", &own, "spiffe://east.linkspan/ns/linkspan/sa/linkspan-gateway", None)?;
    leaf(folder, "foreign", &foreign, &client, Some(ACCOUNT))?;
    folder.write("ca.crt", &ca.pem())?;
    folder.write("own-ca.crt", &own.pem())?;
    Ok(())
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn leaf(
    folder: &Scratch,
    name: &str,
    ca: &CertifiedIssuer<'static, KeyPair>,
    uri: &str,
    account: Option<(&str, &str)>,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, account.map_or(NAME, |(name, _)| name));
    if let Some((_, uid)) = account {
        let uid = DnValue::Utf8String(uid.to_owned());
        params.distinguished_name.push(DnType::CustomDnType(UID_ATTRIBUTE.to_vec()), uid);
    }
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?), SanType::DnsName(NAME.try_into()?)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = (params.signed_by(&key, ca)?.pem(), key.serialize_pem());
    folder.write(&format!("{name}.crt"), &certificate)?;
    folder.write(&format!("{name}.key"), &key)?;
    folder.write(&format!("{name}.pem"), &format!("{certificate}{key}"))?;
    Ok(())
}

/// TLS for a client that has certificate `name` and trusts the CA.
pub(crate) fn client_config(folder: &Path, name: &str, suite: &str) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider(suite)?)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(folder)?);
    let (chain, key) = read(folder, name)?;
    let mut config = builder.with_client_auth_cert(chain, key)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// TLS for the called side, which asks for a certificate of the CA.
pub(crate) fn server_config(folder: &Path, suite: &str) -> Result<ServerConfig> {
    let provider = provider(suite)?;
    let roots = Arc::new(roots(folder)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let (chain, key) = read(folder, "server")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn roots(folder: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    Ok(roots)
}

fn read(folder: &Path, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt")))?;
    Ok((vec![certificate], PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?))
}

/// The default provider with only the suite that has this name in TLS' registry.
fn provider(suite: &str) -> Result<Arc<CryptoProvider>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|s| s.suite().as_str() == Some(suite_name(suite).as_str()));
    (!provider.cipher_suites.is_empty())
        .then_some(())
        .with_context(|| format!("there is no suite {suite}"))?;
    Ok(Arc::new(provider))
}

/// `TLS_AES...` is called `TLS13_AES...` by rustls.
fn suite_name(suite: &str) -> String {
    suite.replacen("TLS_", "TLS13_", 1)
}
