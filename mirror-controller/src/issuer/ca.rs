//! The cluster's certificate authority: made, checked, and signing. Pure but for the making of keys.
//!
//! An existing Secret, whoever wrote it, is used as it is; what makes it unusable is found when it is read, not when
//! a gateway is turned away: a trial certificate is signed and verified as gateways do.

use crate::issuer::certificate::{
    Certificate, CertificateError, accepted_from_client, accepted_from_server, chain, first_block,
};
use jiff::{SignedDuration, Timestamp};
use linkspan_core::api::{
    credentials::{CA_CERT, CA_KEY, CA_SECRET},
    identity::{Identity, TrustDomain, UID_ATTRIBUTE},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::time::Duration;

/// How far the clocks of two clusters may differ: a certificate starts this long before it is made, for clocks that are
/// behind.
pub const TOLERATED_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How long a CA that we make lives.
const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
/// Longest life of a certificate for a gateway, server or client.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// A CA that can sign. It prints nothing of its key.
pub struct CertificateAuthority {
    pem: String,
    serial: String,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// A CA as it is kept in its Secret, or in files.
#[derive(PartialEq, Eq)]
pub struct KeptCa {
    /// Certificate (PEM).
    pub certificate: String,
    /// Private key (PEM).
    pub key: String,
}

/// Why a CA cannot be used, or did not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key of the Secret is absent or not text.
    #[error(
        "Secret {CA_SECRET} has no text under {0}: give it {CA_CERT} and {CA_KEY} (type kubernetes.io/tls), or delete it to have one made"
    )]
    Missing(&'static str),
    /// A file cannot be read.
    #[error("{0} cannot be read: {1}; put {CA_CERT} and {CA_KEY} (PEM) into the folder that --ca-dir names")]
    File(String, String),
    /// The certificate cannot be read.
    #[error("{CA_CERT} of the CA cannot be used: {0}; put a CA certificate (PEM) there")]
    Certificate(#[from] CertificateError),
    /// The private key cannot be read.
    #[error(
        "{CA_KEY} of the CA is no private key that can sign here (ECDSA P-256 or P-384, Ed25519, RSA; PEM, not encrypted)"
    )]
    Key,
    /// Certificate and key do not belong together, or the certificate must not sign.
    #[error("the CA cannot be used: {0}")]
    Unfit(String),
    /// Signing or key making failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}

/// A certificate to be signed.
pub struct Leaf<'a, K> {
    /// Whose it is.
    pub identity: &'a Identity,
    /// Uid of the account, where it is a linked cluster's.
    pub uid: Option<&'a str>,
    /// Which end of a connection it is for.
    pub usage: Usage,
    /// The subject's public key.
    pub public_key: &'a K,
    /// How long it is good from `now` on, at most [`LEAF_LIFETIME`] and the CA's own end.
    pub lifetime: SignedDuration,
    /// Random serial number.
    pub serial: [u8; 16],
}

/// Which end of a connection a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The gateway that is called.
    Server,
    /// The gateway that calls.
    Client,
}

impl CertificateAuthority {
    /// Makes a CA for `trust_domain`: ECDSA P-256, ten years.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate(trust_domain: &TrustDomain, serial: [u8; 16], now: Timestamp) -> Result<KeptCa, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Linkspan CA");
        params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(positive(serial));
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - TOLERATED_SKEW);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + CA_LIFETIME);
        let certificate = params.self_signed(&key)?;
        Ok(KeptCa { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Reads a CA and proves that what it signs is accepted.
    ///
    /// # Errors
    /// What makes it unusable.
    pub fn load(kept: &KeptCa, trust_domain: &TrustDomain, now: Timestamp) -> Result<Self, CaError> {
        let der = chain(&kept.certificate)?.into_iter().next().ok_or(CertificateError::Absent)?;
        let facts = Certificate::read(&der)?;
        let key = private_key(&kept.key)?;
        let unfit = |why: &str| Err(CaError::Unfit(why.to_owned()));
        if facts.public_key != key.subject_public_key_info() {
            return unfit(
                "its certificate is not for its private key; put the pair there that belongs together",
            );
        }
        if !facts.is_ca {
            return unfit("its certificate is no CA (basic constraints); put a CA's certificate there");
        }
        if now < facts.not_before || facts.not_after <= now {
            let (from, until) = (facts.not_before, facts.not_after);
            return unfit(&format!("its certificate is good from {from} until {until} only; renew it"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        let ca = Self {
            pem: first_block(&kept.certificate),
            serial: facts.serial,
            not_after: facts.not_after,
            issuer,
        };
        ca.prove(trust_domain, now)?;
        Ok(ca)
    }

    /// Signs one certificate of each usage and has it verified as gateways do: this finds name constraints, key usages
    /// and subjects that would make every certificate useless.
    fn prove(&self, trust_domain: &TrustDomain, now: Timestamp) -> Result<(), CaError> {
        let key = KeyPair::generate()?;
        let identity = Identity::link_account(trust_domain.clone(), "linkspan", "trial");
        let sign = |usage| {
            let lifetime = LEAF_LIFETIME;
            let leaf =
                Leaf { identity: &identity, uid: None, usage, public_key: &key, lifetime, serial: [1; 16] };
            self.sign(&leaf, now)
        };
        let refused = |why| {
            let mend = "give it a CA without name constraints on URIs, with key usage certificate signing";
            CaError::Unfit(format!("what it signs is not accepted ({why}); {mend}"))
        };
        accepted_from_client(&self.pem, &sign(Usage::Client)?, now).map_err(refused)?;
        accepted_from_server(&self.pem, &sign(Usage::Server)?, now).map_err(refused)
    }

    /// The certificate that others trust (PEM). Only the one that signs: whatever is above it may sign for others.
    pub fn bundle(&self) -> &str {
        &self.pem
    }

    /// Its certificate's serial number (lower-case hex).
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When it ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Signs a certificate that starts five minutes before `now` (PEM).
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn sign(&self, leaf: &Leaf<'_, impl PublicKeyData>, now: Timestamp) -> Result<String, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&leaf.identity.service_account);
        if let Some(uid) = leaf.uid {
            let attribute = DnType::CustomDnType(UID_ATTRIBUTE.to_vec());
            params.distinguished_name.push(attribute, DnValue::Utf8String(uid.to_owned()));
        }
        params.subject_alt_names = vec![SanType::URI(leaf.identity.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match leaf.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(positive(leaf.serial));
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - TOLERATED_SKEW);
        let end = (now + leaf.lifetime.min(LEAF_LIFETIME)).min(self.not_after);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(end);
        Ok(params.signed_by(leaf.public_key, &self.issuer)?.pem())
    }
}

/// The first private key in a PEM text: PKCS#8, SEC1 or PKCS#1; other blocks, such as openssl's curve parameters, are
/// passed over.
fn private_key(pem: &str) -> Result<KeyPair, CaError> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaError::Key)?;
    KeyPair::try_from(der.secret_der()).map_err(|_| CaError::Key)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// A serial number is a positive integer: the highest bit is 0, the one below it 1.
fn positive(mut serial: [u8; 16]) -> SerialNumber {
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

/// Time since 1970, the form in which dates of certificates are given.
fn since_1970(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests;
