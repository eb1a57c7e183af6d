//! Certificates that are in use, read without touching any private key.

use jiff::Timestamp;
use x509_parser::{extensions::GeneralName, pem::Pem, prelude::FromDer};

/// What one certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: its SPIFFE URI where it has one, else its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number, lower-case hex, as the list of denied ones has it.
    pub serial: String,
    /// From when it holds.
    pub not_before: Timestamp,
    /// Until when it holds.
    pub not_after: Timestamp,
}

/// All certificates of a PEM text, in their order; anything else in it is passed over.
///
/// # Errors
/// When a certificate cannot be read.
pub fn read(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut all = vec![];
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|e| format!("not PEM: {e}"))?;
        if block.label == "CERTIFICATE" {
            all.push(certificate(&block.contents)?);
        }
    }
    Ok(all)
}

fn certificate(der: &[u8]) -> Result<Certificate, String> {
    let (_, read) = x509_parser::certificate::X509Certificate::from_der(der)
        .map_err(|e| format!("a certificate cannot be read: {e}"))?;
    let time =
        |seconds| Timestamp::from_second(seconds).map_err(|e| format!("a certificate has no time: {e}"));
    let names = read.subject_alternative_name().ok().flatten().map(|san| &san.value.general_names);
    let uri = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    Ok(Certificate {
        subject: uri.unwrap_or_else(|| read.subject().to_string()),
        issuer: read.issuer().to_string(),
        serial: read.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: time(read.validity().not_before.timestamp())?,
        not_after: time(read.validity().not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    #[test]
    fn whose_a_certificate_is_stands_in_its_uri() {
        let uri = "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway";
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.serial_number = Some(vec![0x0a, 0xff].into());
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let all = read(format!("{}{pem}", key.serialize_pem()).as_bytes()).unwrap();
        assert_eq!(all.len(), 1, "a key is passed over");
        assert_eq!((all[0].subject.as_str(), all[0].serial.as_str()), (uri, "0aff"));
        assert!(all[0].not_before < all[0].not_after);
        assert!(read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert_eq!(read(b""), Ok(vec![]));
    }
}
