//! Reads who a certificate is for. Pure: whether the certificate can be trusted is decided elsewhere.

use jiff::Timestamp;
use linkspan_core::api::{
    credentials::normal_serial,
    identity::{Identity, UID_ATTRIBUTE},
    reason::Reason,
};
use x509_parser::{
    der_parser::Oid,
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The one SPIFFE URI in it.
    pub identity: Identity,
    /// The account's uid, which client certificates carry.
    pub uid: Option<String>,
    /// Serial number: lower-case hex without leading zeros.
    pub serial: String,
    /// Until when the certificate is valid.
    pub not_after: Timestamp,
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The bytes are no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No URI, or several.
    #[error("the certificate has {0} URIs, exactly one is expected")]
    Uris(usize),
    /// A URI that is no identity.
    #[error("the certificate is for {0:?}, which is no identity")]
    NotAnIdentity(String),
    /// An identity other than expected.
    #[error("the certificate is for {found}, expected is {expected}")]
    Other {
        /// Who it is.
        found: Identity,
        /// Who was expected, in words.
        expected: String,
        /// Whether the gateway of another cluster was met.
        wrong_cluster: bool,
    },
}

impl PeerError {
    /// The word for it.
    pub fn reason(&self) -> Reason {
        match self {
            PeerError::Other { wrong_cluster: true, .. } => Reason::WrongCluster,
            _ => Reason::Identity,
        }
    }
}

/// Reads the certificate `der`.
///
/// # Errors
/// When it does not name exactly one identity.
pub fn read(der: &[u8]) -> Result<Peer, PeerError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let [uri] = uris[..] else { return Err(PeerError::Uris(uris.len())) };
    let identity = uri.parse().map_err(|_| PeerError::NotAnIdentity(uri.chars().take(256).collect()))?;
    let uid_oid = Oid::from(UID_ATTRIBUTE).map_err(|_| PeerError::Unreadable)?;
    let uid = certificate.subject().iter_by_oid(&uid_oid).next();
    let uid = uid.and_then(|attribute| attribute.as_str().ok()).map(str::to_owned);
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|_| PeerError::Unreadable)?;
    Ok(Peer { identity, uid, serial: hex(certificate.raw_serial()), not_after })
}

/// Reads the certificate of a gateway that must be `expected`.
///
/// # Errors
/// When it is another's; another cluster's gateway is told apart from any other identity.
pub fn expect_gateway(der: &[u8], expected: &Identity) -> Result<Peer, PeerError> {
    let peer = read(der)?;
    if peer.identity == *expected {
        return Ok(peer);
    }
    Err(PeerError::Other {
        wrong_cluster: peer.identity.trust_domain != expected.trust_domain,
        found: peer.identity,
        expected: expected.to_string(),
    })
}

fn hex(bytes: &[u8]) -> String {
    normal_serial(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::certs::Authority;

    #[test]
    fn reads_uri_uid_and_serial() {
        let leaf = Authority::new("west").client("linkspan", "east", "uid-1");
        let peer = read(&leaf.der).unwrap();
        assert_eq!(peer.identity.to_string(), "spiffe://west.linkspan/ns/linkspan/sa/east");
        assert_eq!(peer.uid.as_deref(), Some("uid-1"));
        assert_eq!(peer.serial, leaf.serial);
        assert_eq!(peer.not_after.to_string(), "4000-01-01T00:00:00Z");
    }

    #[test]
    fn another_clusters_gateway_is_told_apart_from_another_identity() {
        let leaf = Authority::new("west").gateway("linkspan");
        let expect = |uri: &str| expect_gateway(&leaf.der, &uri.parse().unwrap());
        assert!(expect("spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway").is_ok());
        let other_account = expect("spiffe://west.linkspan/ns/linkspan/sa/other").unwrap_err();
        assert_eq!(other_account.reason(), Reason::Identity);
        let other_cluster = expect("spiffe://north.linkspan/ns/linkspan/sa/linkspan-gateway").unwrap_err();
        assert_eq!(other_cluster.reason(), Reason::WrongCluster);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert_eq!(read(b""), Err(PeerError::Unreadable));
        assert_eq!(read(&[0x30; 300]), Err(PeerError::Unreadable));
        let nobody = Authority::new("west").leaf(&[]);
        assert_eq!(read(&nobody.der), Err(PeerError::Uris(0)));
        let two = Authority::new("west").leaf(&["spiffe://a/ns/b/sa/c", "spiffe://a/ns/b/sa/d"]);
        assert_eq!(read(&two.der), Err(PeerError::Uris(2)));
    }
}
