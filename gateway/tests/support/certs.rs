//! Certificate authorities of pretended clusters.

use linkspan_core::api::identity::UID_ATTRIBUTE;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, SerialNumber,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The year 4000, in seconds after 1970.
pub(crate) const FOREVER: i64 = 64_060_588_800;
/// The year 2021.
const LONG_AGO: i64 = 1_609_459_200;

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
        self.gateway_until(namespace, FOREVER)
    }

    /// One that is valid until `ends` seconds after 1970.
    pub(crate) fn gateway_until(&self, namespace: &str, ends: i64) -> Leaf {
        let uri = format!("spiffe://{}.linkspan/ns/{namespace}/sa/linkspan-gateway", self.name);
        self.sign(&[&uri], None, ends)
    }

    /// A client certificate of `account`, which has `uid`.
    pub(crate) fn client(&self, namespace: &str, account: &str, uid: &str) -> Leaf {
        self.client_until(namespace, account, uid, FOREVER)
    }

    /// One that is valid until `ends` seconds after 1970.
    pub(crate) fn client_until(&self, namespace: &str, account: &str, uid: &str, ends: i64) -> Leaf {
        let uri = format!("spiffe://{}.linkspan/ns/{namespace}/sa/{account}", self.name);
        self.sign(&[&uri], Some((account, uid)), ends)
    }

    /// One that ended long ago.
    pub(crate) fn expired_client(&self, namespace: &str, account: &str, uid: &str) -> Leaf {
        self.client_until(namespace, account, uid, LONG_AGO)
    }

    /// A certificate with these URIs.
    pub(crate) fn leaf(&self, uris: &[&str]) -> Leaf {
        self.sign(uris, None, FOREVER)
    }

    fn sign(&self, uris: &[&str], account: Option<(&str, &str)>, ends: i64) -> Leaf {
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
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ends.unsigned_abs());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().to_vec(),
            serial: format!("{serial:x}"),
        }
    }
}
