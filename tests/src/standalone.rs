//! Gateways without Kubernetes: each in a namespace of its own, configured by files, calling each other.

use crate::{Process, Program, netns::Namespace, scratch::Scratch};
use anyhow::{Context, Result};
use linkspan_core::api::identity::UID_ATTRIBUTE;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use std::net::SocketAddr;

/// The port on which each gateway takes flows to the other's Service.
pub const EGRESS: u16 = 10_007;
/// Where each gateway takes tunnel connections.
const TUNNEL: u16 = 4143;

/// One gateway: its namespace, its program, and the pod behind its Service.
#[derive(Clone, Debug)]
pub struct Side<'a> {
    /// Where it runs.
    pub place: &'a Namespace,
    /// What runs.
    pub gateway: Program,
    /// Where its Service `api.default:8080` leads.
    pub backend: SocketAddr,
}

/// A running gateway.
#[derive(Debug)]
pub struct Standalone {
    /// The process.
    pub process: Process,
    /// Takes flows to the other side's Service.
    pub egress: SocketAddr,
    /// Its folder with configuration and keys.
    _files: Scratch,
}

/// A cluster's own CA.
struct Cluster {
    name: &'static str,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Starts gateways `east` and `west`; each calls the other and is called by it.
///
/// # Errors
/// When one cannot be started.
pub fn start_pair(east: &Side<'_>, west: &Side<'_>) -> Result<[Standalone; 2]> {
    let (east_ca, west_ca) = (Cluster::new("east")?, Cluster::new("west")?);
    Ok([start(east, &east_ca, west, &west_ca)?, start(west, &west_ca, east, &east_ca)?])
}

fn start(own: &Side<'_>, ca: &Cluster, other: &Side<'_>, other_ca: &Cluster) -> Result<Standalone> {
    let files = Scratch::new(ca.name)?;
    ca.leaf("linkspan-gateway", None, "server", &files)?;
    other_ca.leaf(ca.name, Some("uid-1"), "client", &files)?;
    files.write("own-ca.crt", &ca.pem)?;
    files.write("peer-ca.crt", &other_ca.pem)?;
    let (peer, peer_address, backend) = (other_ca.name, other.place.address(), own.backend);
    let config = format!(
        "server: {{ certificate: server.crt, key: server.key, bundle: own-ca.crt }}\n\
         accounts: [{{ name: {peer}, uid: uid-1 }}]\n\
         peers:\n- name: {peer}\n  addresses: [\"{peer_address}:{TUNNEL}\"]\n  \
         identity: spiffe://{peer}.linkspan/ns/linkspan/sa/linkspan-gateway\n  \
         certificate: client.crt\n  key: client.key\n  bundle: peer-ca.crt\n\
         listeners: [{{ port: {EGRESS}, peer: {peer}, target: \"api.default:8080\" }}]\n\
         services: [{{ name: api.default, ports: [{{ port: 8080, endpoints: [\"{backend}\"] }}] }}]\n"
    );
    let path = files.write("gateway.yaml", &config)?;
    let program = own.gateway.clone().arg("--config").arg(path).args(["--log-level", "debug"]);
    let process = program.within(own.place).start(ca.name)?;
    let egress = SocketAddr::new(own.place.address().into(), EGRESS);
    Ok(Standalone { process, egress, _files: files })
}

impl Cluster {
    fn new(name: &'static str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).context("cannot make a CA")?.pem();
        Ok(Self { name, pem, issuer: Issuer::new(params, key) })
    }

    /// Writes certificate and key of `account` to `<file>.crt` and `<file>.key`.
    fn leaf(&self, account: &str, uid: Option<&str>, file: &str, files: &Scratch) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(uid) = uid {
            let uid = DnValue::Utf8String(uid.to_owned());
            params.distinguished_name.push(DnType::CustomDnType(UID_ATTRIBUTE.to_vec()), uid);
        }
        let uri = format!("spiffe://{}.linkspan/ns/linkspan/sa/{account}", self.name);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        files.write(&format!("{file}.crt"), &certificate.pem())?;
        files.write(&format!("{file}.key"), &key.serialize_pem())?;
        Ok(())
    }
}
