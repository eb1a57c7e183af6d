//! Certificate authorities of pretended clusters.

use linkspan_core::api::identity::UID_ATTRIBUTE;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, SerialNumber,
};
use std::sync::atomic::{AtomicU64, Ordering};

static SERIAL: AtomicU64 = AtomicU64::new(1000);

/// The CA of one cluster, whose trust domain is `<name>.linkspan`.
pub(crate) struct Authority {
    name: String,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
    pub(crate) der: Vec<u8>,
    pub(crate) serial: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { name: name.to_owned(), pem, issuer: Issuer::new(params, key) }
    }

    /// The CA's certificate.
    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A gateway's server certificate.
    pub(crate) fn gateway(&self, namespace: &str) -> Leaf {
        self.leaf(&[&format!("spiffe://{}.linkspan/ns/{namespace}/sa/linkspan-gateway", self.name)])
    }

    /// A client certificate of `account`, which has `uid`.
    pub(crate) fn client(&self, namespace: &str, account: &str, uid: &str) -> Leaf {
        let uri = format!("spiffe://{}.linkspan/ns/{namespace}/sa/{account}", self.name);
        self.sign(&[&uri], Some((account, uid)), 0)
    }

    /// One that ended yesterday.
    pub(crate) fn expired_client(&self, namespace: &str, account: &str, uid: &str) -> Leaf {
        let uri = format!("spiffe://{}.linkspan/ns/{namespace}/sa/{account}", self.name);
        self.sign(&[&uri], Some((account, uid)), 2)
    }

    /// A certificate with these URIs.
    pub(crate) fn leaf(&self, uris: &[&str]) -> Leaf {
        self.sign(uris, None, 0)
    }

    fn sign(&self, uris: &[&str], account: Option<(&str, &str)>, years_ago: i32) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some((account, uid)) = account {
            params.distinguished_name.push(DnType::CommonName, account);
            let uid = DnValue::Utf8String(uid.to_owned());
            params.distinguished_name.push(DnType::CustomDnType(UID_ATTRIBUTE.to_vec()), uid);
        }
        params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = if years_ago > 0 {
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1))
        } else {
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(4000, 1, 1))
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().to_vec(),
            serial: format!("{serial:x}"),
        }
    }
}
