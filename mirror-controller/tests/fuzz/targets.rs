//! What is fuzzed: every parser of the controller that reads what others write. Each target takes any bytes and panics
//! when a promise is broken. The test program beside this file runs them by itself (`linkspan_tests::fuzz`); `make fuzz`
//! runs them under libFuzzer.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use linkspan_core::api::credentials::{denied_serials, normal_serial};
use linkspan_mirror_controller::{
    credentials::{
        certificate_need::{Answer, answer},
        kubeconfig::Credentials,
        token::Token,
    },
    issuer::{
        ca_history::CaHistory,
        certificate::{Certificate, chain, first_block},
        request,
        review::{Asked, House, LiveAccount, Verdict, review},
    },
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

/// A name and what is done with bytes.
pub(crate) type Fuzz = (&'static str, fn(&[u8]));

/// All of them; each has a folder of inputs in `corpus/`.
pub(crate) const TARGETS: [Fuzz; 7] = [
    ("request", request),
    ("object", object),
    ("certificate", certificate),
    ("kubeconfig", kubeconfig),
    ("token", token),
    ("history", history),
    ("serials", serials),
];

const URI: &str = "spiffe://u1.linkspan/ns/linkspan/sa/east";

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn house() -> House {
    House { trust_domain: "u1.linkspan".parse().unwrap(), namespace: "linkspan".into() }
}

/// Whatever is in a PKCS#10 request, at most the account's own URI is granted, for the key that is in it.
fn request(bytes: &[u8]) {
    let read = request::read(bytes);
    let asked = Asked {
        name: "linkspan-east-x".into(),
        signer: "linkspan.dev/gateway-client".into(),
        username: "system:serviceaccount:linkspan:east".into(),
        uid: "u-1".into(),
        usages: vec!["client auth".into()],
        expiration_seconds: None,
        request: bytes.to_vec(),
        approved: true,
        settled: false,
    };
    let live = LiveAccount { uid: "u-1".into(), link_account: true };
    match review(&asked, Some(&live), &house()) {
        Verdict::Sign(grant) => {
            let read = read.unwrap();
            assert_eq!(
                (grant.identity.to_string().as_str(), read.names.as_slice()),
                (URI, &[URI.to_owned()][..])
            );
            assert_eq!(grant.public_key.subject_public_key_info(), read.public_key.subject_public_key_info());
            // What is granted can be asked for again.
            assert!(CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).is_ok());
        }
        Verdict::Fail(refusal) => assert!(!refusal.to_string().is_empty()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(review(&asked, None, &house()), Verdict::Fail(_)), "nobody lives");
}

/// Whatever an API server may send as a CertificateSigningRequest.
fn object(bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<CertificateSigningRequest>(bytes) else { return };
    let asked = Asked::of(&object);
    let nobody = review(&asked, None, &house());
    assert!(!matches!(nobody, Verdict::Approve | Verdict::Sign(_)), "{nobody:?}");
    let plain = LiveAccount { uid: asked.uid.clone(), link_account: false };
    let verdict = review(&asked, Some(&plain), &house());
    assert!(!matches!(verdict, Verdict::Approve | Verdict::Sign(_)), "{verdict:?}");
    assert_eq!(asked.is_open(), !matches!(nobody, Verdict::Ignore));
    if let Answer::Signed(pem) = answer(&object) {
        let _ = Certificate::first_of(&pem);
    }
}

fn certificate(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(found) = chain(&text) {
        for der in &found {
            let Ok(certificate) = Certificate::read(der) else { continue };
            let at = certificate.renew_at();
            assert!(at <= certificate.not_after, "{certificate:?}");
            assert!(certificate.uris.len() <= certificate.alternative_names);
            assert_eq!(normal_serial(&certificate.serial), certificate.serial.trim_start_matches('0'));
        }
        if !found.is_empty() {
            let first = chain(&first_block(&text));
            assert!(first.is_err() || first.unwrap().len() <= 1);
        }
    }
}

/// A kubeconfig that can be read takes another token, and is the same otherwise.
fn kubeconfig(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(given) = Credentials::read(text) else { return };
    let Ok(renewed) = given.with_token("h.e30.s") else { return };
    let renewed = Credentials::read(&renewed).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(renewed.token, Token::read("h.e30.s"));
    let again = renewed.with_token("h.e30.s").unwrap();
    assert_eq!(again, renewed.text);
}

fn token(bytes: &[u8]) {
    let token = Token::read(&String::from_utf8_lossy(bytes));
    if let Some(account) = token.account {
        assert!(!account.name.is_empty() && !account.namespace.is_empty() && !account.name.contains(':'));
    }
}

fn history(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let history = CaHistory::read(Some(&text)).with("CA\n", now());
    assert!(history.bundle().starts_with("CA\n"));
    assert_eq!(CaHistory::read(Some(&history.text())), history);
}

fn serials(bytes: &[u8]) {
    let (serials, _) = denied_serials(&String::from_utf8_lossy(bytes));
    for serial in &serials {
        assert!(!serial.is_empty() && normal_serial(serial) == *serial);
        assert!(denied_serials(serial).0.contains(serial));
    }
}
