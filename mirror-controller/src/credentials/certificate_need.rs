//! Whether the client certificate for a link is good, and what to ask for when it is not. Pure.

use crate::issuer::{
    ca::TOLERATED_SKEW,
    certificate::{Certificate, accepted_from_client},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::api::ObjectMeta;
use linkspan_core::api::{identity::Identity, labels::SIGNER};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};

/// Seconds of life that are asked for.
const SECONDS: i32 = 24 * 60 * 60;

/// What a client certificate must be.
pub struct Expected<'a> {
    /// The gateways' client key.
    pub key: &'a KeyPair,
    /// Whose certificate it must be: our account in the target cluster.
    pub identity: &'a Identity,
    /// The account's uid.
    pub uid: &'a str,
    /// The target's bundle (PEM), once it is known.
    pub bundle: Option<&'a str>,
}

/// What is to be done about a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is good.
    Nothing {
        /// When to ask for the next.
        renew_at: Timestamp,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// Ask for one, and why; `usable_until` is the end of the present one where it still works.
    Another {
        /// Why.
        why: &'static str,
        /// The end of the present one, where it still works.
        usable_until: Option<Timestamp>,
    },
}

/// Judges the certificate `present` (PEM) at `now`.
pub fn need(present: Option<&str>, expected: &Expected<'_>, now: Timestamp) -> Need {
    let useless = |why| Need::Another { why, usable_until: None };
    let Some(pem) = present else { return useless("there is none") };
    let Ok(certificate) = Certificate::first_of(pem) else {
        return useless("the present one cannot be read");
    };
    if certificate.public_key != expected.key.subject_public_key_info() {
        return useless("the present one is for another key");
    }
    if certificate.uris != [expected.identity.to_string()] || certificate.alternative_names != 1 {
        return useless("the present one is for another identity");
    }
    if certificate.uid.as_deref() != Some(expected.uid) {
        return useless("the account was made anew");
    }
    if certificate.not_after <= now {
        return useless("the present one has ended");
    }
    if now < certificate.not_before {
        return useless("the present one is not valid yet by this cluster's clock");
    }
    if expected.bundle.is_some_and(|bundle| accepted_from_client(bundle, pem, now).is_err()) {
        return useless("the target's bundle no longer covers the present one");
    }
    let (renew_at, expires_at) = (certificate.renew_at(), certificate.not_after);
    if renew_at <= now {
        return Need::Another { why: "two thirds of its life are over", usable_until: Some(expires_at) };
    }
    Need::Nothing { renew_at, expires_at }
}

/// How far the target's clock is ahead of `now`, judging by a certificate (PEM) that it has just signed; negative where it
/// is behind. `None` when the certificate cannot be read.
pub fn target_is_ahead(signed: &str, now: Timestamp) -> Option<SignedDuration> {
    let made = Certificate::first_of(signed).ok()?.not_before + TOLERATED_SKEW;
    Some(made.duration_since(now))
}

/// The request to the target cluster for a certificate of `identity` with `key`.
///
/// # Errors
/// When the crypto library refuses.
pub fn request(key: &KeyPair, identity: &Identity) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, identity.service_account.as_str());
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    let pem = params.serialize_request(key)?.pem()?;
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(format!("linkspan-{}-", identity.service_account)),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            expiration_seconds: Some(SECONDS),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Waiting,
    /// The certificate chain (PEM).
    Signed(String),
    /// Denied, with the signer's words.
    Denied(String),
    /// Approved, but it could not be signed, with the signer's words.
    Failed(String),
}

/// Reads what became of `request`.
pub fn answer(request: &CertificateSigningRequest) -> Answer {
    let Some(status) = &request.status else { return Answer::Waiting };
    for condition in status.conditions.iter().flatten().filter(|c| c.status != "False") {
        let words = condition.message.clone().unwrap_or_default();
        match condition.type_.as_str() {
            "Denied" => return Answer::Denied(words),
            "Failed" => return Answer::Failed(words),
            _ => {}
        }
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty());
    certificate.map_or(Answer::Waiting, |pem| Answer::Signed(String::from_utf8_lossy(&pem.0).into_owned()))
}

#[cfg(test)]
mod tests;
