//! Reading the PKCS #10 request inside a CertificateSigningRequest: what it asks for and whether it is sound. Pure.

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo as Spki,
};

/// What a sound request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Every alternative name it asks for, as text; URIs stand as they are.
    pub names: Vec<String>,
    /// The key to be certified.
    pub public_key: SubjectPublicKeyInfo,
}

/// Why a request is not even looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not one PEM block with a PKCS #10 request.
    #[error("spec.request is not one PEM block with a PKCS #10 request")]
    Form,
    /// Its signature was not made with its key.
    #[error("the request is not signed with the key it is for")]
    Signature,
    /// Its key is of another kind, or too weak.
    #[error("its key is {0}; use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits")]
    Key(String),
    /// It asks for something that no certificate of this signer has.
    #[error("the request asks for {0}, which this signer gives to nobody")]
    Extension(String),
}

/// Reads a request (PEM) and checks its signature and key.
///
/// # Errors
/// Why it is refused.
pub fn read(pem: &[u8]) -> Result<Request, RequestError> {
    let mut blocks = CertificateSigningRequestDer::pem_slice_iter(pem);
    let der = blocks.next().and_then(Result::ok).ok_or(RequestError::Form)?;
    if blocks.next().is_some() {
        return Err(RequestError::Form);
    }
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
    if !rest.is_empty() {
        return Err(RequestError::Form);
    }
    let key = &request.certification_request_info.subject_pki;
    check_key(key)?;
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    let public_key = SubjectPublicKeyInfo::from_der(key.raw)
        .map_err(|_| RequestError::Key("of a kind that is not known here".to_owned()))?;
    Ok(Request { names: requested_names(&request)?, public_key })
}

fn check_key(key: &Spki<'_>) -> Result<(), RequestError> {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const ED25519: &str = "1.3.101.112";
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    match key.parsed() {
        Ok(PublicKey::EC(_)) if matches!(curve.as_deref(), Some(P256 | P384)) => Ok(()),
        Ok(PublicKey::EC(_)) => Err(RequestError::Key("on another elliptic curve".to_owned())),
        Ok(PublicKey::RSA(rsa)) => match bits(rsa.modulus) {
            2048..=8192 => Ok(()),
            bits => Err(RequestError::Key(format!("RSA with {bits} bits"))),
        },
        _ if key.algorithm.algorithm.to_id_string() == ED25519 => Ok(()),
        _ => Err(RequestError::Key("of another kind".to_owned())),
    }
}

/// Length of a positive number without its leading zeros.
fn bits(number: &[u8]) -> usize {
    match number.iter().position(|byte| *byte != 0) {
        Some(first) => (number.len() - first) * 8 - number[first].leading_zeros() as usize,
        None => 0,
    }
}

/// Every alternative name that any extension of any attribute asks for.
fn requested_names(request: &X509CertificationRequest<'_>) -> Result<Vec<String>, RequestError> {
    let mut names = Vec::new();
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
        for extension in &requested.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => {
                    names.extend(san.general_names.iter().map(text_of));
                }
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
                ParsedExtension::BasicConstraints(_) => {
                    return Err(RequestError::Extension("the right to sign certificates".to_owned()));
                }
                ParsedExtension::KeyUsage(usage)
                    if !usage.key_cert_sign() && !usage.crl_sign() && !usage.key_agreement() => {}
                ParsedExtension::KeyUsage(_) => {
                    return Err(RequestError::Extension("a key usage of a CA".to_owned()));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let others = usage.any
                        || usage.server_auth
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty();
                    if others {
                        return Err(RequestError::Extension(
                            "an extended usage beside client auth".to_owned(),
                        ));
                    }
                }
                _ => {
                    return Err(RequestError::Extension(format!(
                        "extension {}",
                        extension.oid.to_id_string()
                    )));
                }
            }
        }
    }
    Ok(names)
}

fn text_of(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::DNSName(name) => format!("DNS name {name:?}"),
        GeneralName::IPAddress(bytes) => format!("IP address {bytes:?}"),
        GeneralName::RFC822Name(name) => format!("mail address {name:?}"),
        _ => "a name of another kind".to_owned(),
    }
}
