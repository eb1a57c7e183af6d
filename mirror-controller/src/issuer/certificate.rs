//! Reading certificates: what one says, when to renew it, and whether a gateway would accept it. Pure.

use jiff::{SignedDuration, Timestamp};
use linkspan_core::api::identity::UID_ATTRIBUTE;
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{sync::Arc, time::Duration};
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

/// What a certificate says, as far as anybody here asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Start of its time.
    pub not_before: Timestamp,
    /// End of its time.
    pub not_after: Timestamp,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// URIs among the subject's alternative names.
    pub uris: Vec<String>,
    /// How many alternative names there are of any kind.
    pub alternative_names: usize,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The uid of the account it was given to.
    pub uid: Option<String>,
    /// The subject's public key (DER, SubjectPublicKeyInfo).
    pub public_key: Vec<u8>,
    /// Whether it may sign certificates.
    pub is_ca: bool,
}

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The PEM text is broken.
    #[error("not PEM: {0}")]
    Pem(String),
    /// The PEM text holds no certificate.
    #[error("no certificate in it")]
    Absent,
    /// A certificate's bytes are broken.
    #[error("not an X.509 certificate: {0}")]
    Der(String),
}

impl Certificate {
    /// Reads the first certificate of a chain (PEM).
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn first_of(pem: &str) -> Result<Self, CertificateError> {
        Self::read(chain(pem)?.first().ok_or(CertificateError::Absent)?)
    }

    /// Reads one certificate.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let wrong = |e: &dyn std::fmt::Display| CertificateError::Der(e.to_string());
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| wrong(&e))?;
        if !rest.is_empty() {
            return Err(CertificateError::Der("bytes after its end".to_owned()));
        }
        let time = |at: i64| Timestamp::from_second(at).map_err(|e| wrong(&e));
        let names = certificate.subject_alternative_name().map_err(|e| wrong(&e))?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        let constraints = certificate.basic_constraints().map_err(|e| wrong(&e))?;
        Ok(Self {
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
            serial: certificate.serial.to_str_radix(16),
            uris: names.iter().filter_map(uri).collect(),
            alternative_names: names.len(),
            common_name: attribute(&certificate, &[2, 5, 4, 3]),
            uid: attribute(&certificate, UID_ATTRIBUTE),
            public_key: certificate.public_key().raw.to_vec(),
            is_ca: constraints.is_some_and(|extension| extension.value.ca),
        })
    }

    /// When it is due for renewal: after two thirds of its life.
    pub fn renew_at(&self) -> Timestamp {
        two_thirds(self.not_before, self.not_after)
    }
}

/// The subject's attribute with the object identifier `oid`.
fn attribute(certificate: &X509Certificate<'_>, oid: &[u64]) -> Option<String> {
    let wanted: Vec<String> = oid.iter().map(u64::to_string).collect();
    let wanted = wanted.join(".");
    let mut attributes = certificate.subject().iter_attributes();
    let found = attributes.find(|a| a.attr_type().to_id_string() == wanted)?;
    found.as_str().ok().map(str::to_owned)
}

/// The certificates in a PEM text, in its order; other sections are passed over.
///
/// # Errors
/// When a section is broken.
pub fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| CertificateError::Pem(e.to_string()))
}

/// The text of the first certificate in a PEM text; empty when there is none.
pub fn first_block(pem: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let start = pem.find("-----BEGIN CERTIFICATE-----");
    let block = start.and_then(|at| Some(&pem[at..at + pem[at..].find(END)? + END.len()]));
    block.map(|text| text.replace('\r', "") + "\n").unwrap_or_default()
}

/// The moment when two thirds of the time from `start` to `end` have passed; `end` itself when that is no time.
pub fn two_thirds(start: Timestamp, end: Timestamp) -> Timestamp {
    let life = end.duration_since(start);
    if life <= SignedDuration::ZERO {
        return end;
    }
    start.checked_add(life / 3 * 2).unwrap_or(end)
}

/// Whether a gateway that trusts `bundle` (PEM) accepts the client certificate chain `chain` (PEM) at `now`. Identity
/// is not looked at here.
///
/// # Errors
/// The reason why not, as one clause.
pub fn accepted_from_client(bundle: &str, chain_pem: &str, now: Timestamp) -> Result<(), String> {
    let roots = roots(bundle)?;
    let chain = chain(chain_pem).map_err(|e| e.to_string())?;
    let (leaf, intermediates) = chain.split_first().ok_or("it holds no certificate")?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| e.to_string())?;
    verifier.verify_client_cert(leaf, intermediates, unix_time(now)).map(|_| ()).map_err(|e| e.to_string())
}

/// Whether a caller that trusts `bundle` (PEM) accepts the server certificate chain `chain` (PEM) at `now`. Identity is
/// not looked at here.
///
/// # Errors
/// The reason why not, as one clause.
pub fn accepted_from_server(bundle: &str, chain_pem: &str, now: Timestamp) -> Result<(), String> {
    let roots = roots(bundle)?;
    let chain = chain(chain_pem).map_err(|e| e.to_string())?;
    let (leaf, intermediates) = chain.split_first().ok_or("it holds no certificate")?;
    let leaf = rustls::server::ParsedCertificate::try_from(leaf).map_err(|e| e.to_string())?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &leaf,
        &roots,
        intermediates,
        unix_time(now),
        provider().signature_verification_algorithms.all,
    )
    .map_err(|e| e.to_string())
}

fn roots(bundle: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in chain(bundle).map_err(|e| e.to_string())? {
        roots.add(root).map_err(|e| e.to_string())?;
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::first_of(&text);
            prop_assert!(Certificate::read(&CertificateDer::from(bytes)).is_err());
        }

        #[test]
        fn renewal_lies_within_life(start in 0i64..4_000_000_000, life in 1i64..400_000_000) {
            let (start, end) = (Timestamp::from_second(start).unwrap(), Timestamp::from_second(start + life).unwrap());
            let at = two_thirds(start, end);
            prop_assert!(start <= at && at < end);
        }
    }

    #[test]
    fn a_day_is_renewed_after_sixteen_hours() {
        let at = two_thirds("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(at.to_string(), "2026-01-01T16:00:00Z");
        let never: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(two_thirds(never, never), never);
    }
}
