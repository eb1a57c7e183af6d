//! Attacks on the signer, each as a value; and that nothing but the honest request passes.

use super::*;
use crate::issuer::request::RequestError;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SanType,
};

const ACCOUNT: &str = "linkspan-remote-access-default";
const URI: &str = "spiffe://u1.linkspan/ns/linkspan/sa/linkspan-remote-access-default";
const UID: &str = "5e0a9a1c-0000-4000-8000-000000000001";

fn house() -> House {
    House { trust_domain: "u1.linkspan".parse().unwrap(), namespace: "linkspan".into() }
}

fn live() -> LiveAccount {
    LiveAccount { uid: UID.into(), link_account: true }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn request_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(URI)];
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap().into_bytes()
}

fn asked() -> Asked {
    Asked {
        name: format!("linkspan-{ACCOUNT}-x7k2p"),
        signer: SIGNER.into(),
        username: format!("system:serviceaccount:linkspan:{ACCOUNT}"),
        uid: UID.into(),
        usages: vec!["digital signature".into(), "client auth".into()],
        expiration_seconds: Some(86_400),
        request: request_with(&KeyPair::generate().unwrap(), |_| {}),
        approved: false,
        settled: false,
    }
}

/// The refusal of the honest request after `change`; the same whether a person approved it or not.
fn refusal(change: impl FnOnce(&mut Asked)) -> Refusal {
    refusal_for(change, Some(&live()))
}

fn refusal_for(change: impl FnOnce(&mut Asked), account: Option<&LiveAccount>) -> Refusal {
    let mut asked = asked();
    change(&mut asked);
    let Verdict::Deny(refusal) = review(&asked, account, &house()) else { panic!("not denied") };
    asked.approved = true;
    assert_eq!(review(&asked, account, &house()), Verdict::Fail(refusal.clone()), "approval must not help");
    refusal
}

fn requests(change: impl FnOnce(&mut CertificateParams)) -> Refusal {
    refusal(|a| a.request = request_with(&KeyPair::generate().unwrap(), change))
}

#[test]
fn the_honest_request_is_approved_then_signed_for_its_account_alone() {
    let mut asked = asked();
    assert_eq!(review(&asked, Some(&live()), &house()), Verdict::Approve);
    asked.approved = true;
    let Verdict::Sign(grant) = review(&asked, Some(&live()), &house()) else { panic!() };
    assert_eq!(grant.identity.to_string(), URI);
    assert_eq!(grant.uid, UID);
    assert_eq!(grant.lifetime, SignedDuration::from_hours(24));
}

#[test]
fn lifetimes_are_bounded() {
    let lifetime = |seconds| {
        let asked = Asked { approved: true, expiration_seconds: seconds, ..asked() };
        let Verdict::Sign(grant) = review(&asked, Some(&live()), &house()) else { panic!() };
        grant.lifetime.as_secs()
    };
    assert_eq!(lifetime(None), 86_400);
    assert_eq!(lifetime(Some(3_600)), 3_600);
    assert_eq!(lifetime(Some(i32::MAX)), 86_400);
    assert_eq!(lifetime(Some(-5)), 600);
}

#[test]
fn what_is_settled_or_of_another_signer_is_left_alone() {
    for approved in [false, true] {
        let settled = Asked { settled: true, approved, ..asked() };
        assert_eq!(review(&settled, Some(&live()), &house()), Verdict::Ignore);
        let other = Asked { signer: "kubernetes.io/kube-apiserver-client".into(), approved, ..asked() };
        assert_eq!(review(&other, Some(&live()), &house()), Verdict::Ignore);
    }
}

#[test]
fn others_than_accounts_of_the_namespace_are_refused() {
    for username in [
        "",
        "kubernetes-admin",
        "system:node:worker",
        "system:serviceaccount:default:linkspan-remote-access-default",
        "system:serviceaccount:linkspan:",
        "system:serviceaccount:linkspan:a:b",
        "system:serviceaccount:linkspan",
    ] {
        let refusal = refusal(|a| a.username = username.into());
        assert!(matches!(refusal, Refusal::NotAnAccount(..)), "{username}: {refusal}");
    }
}

#[test]
fn an_account_that_is_gone_made_anew_or_of_another_kind_gets_nothing() {
    assert!(matches!(refusal_for(|_| {}, None), Refusal::AccountGone(_)));
    let anew = LiveAccount { uid: "another".into(), ..live() };
    assert!(matches!(refusal_for(|_| {}, Some(&anew)), Refusal::AccountGone(_)));
    assert!(
        matches!(refusal(|a| a.uid = "another".into()), Refusal::AccountGone(_)),
        "replay of another's uid"
    );
    let nobody = LiveAccount { uid: String::new(), ..live() };
    assert!(matches!(refusal_for(|a| a.uid.clear(), Some(&nobody)), Refusal::AccountGone(_)));
    let plain = LiveAccount { link_account: false, ..live() };
    assert!(matches!(refusal_for(|_| {}, Some(&plain)), Refusal::NotALinkAccount(_)));
}

#[test]
fn names_of_other_accounts_are_refused() {
    for name in ["linkspan-other-x7k2p", "linkspan-remote-access-default", "my-csr", ""] {
        assert!(matches!(refusal(|a| a.name = name.into()), Refusal::Name(..)), "{name}");
    }
    let other = |a: &mut Asked| {
        a.username = "system:serviceaccount:linkspan:other".into();
        a.name = "linkspan-other-x".into();
    };
    assert!(matches!(refusal(other), Refusal::Names { .. }), "the URI of another account");
}

#[test]
fn every_name_but_the_accounts_own_uri_is_refused() {
    let forged = |names: Vec<SanType>| requests(|p| p.subject_alt_names = names);
    for names in [
        vec![],
        vec![uri("spiffe://u2.linkspan/ns/linkspan/sa/linkspan-remote-access-default")],
        vec![uri("spiffe://u1.linkspan/ns/linkspan/sa/linkspan-gateway")],
        vec![uri("spiffe://u1.linkspan/ns/default/sa/linkspan-remote-access-default")],
        vec![uri("SPIFFE://u1.linkspan/ns/linkspan/sa/linkspan-remote-access-default")],
        vec![uri(&format!("{URI}/"))],
        vec![uri(URI), uri(URI)],
        vec![uri(URI), uri("spiffe://u2.linkspan/ns/linkspan/sa/x")],
        vec![uri(URI), SanType::DnsName("kubernetes.default".try_into().unwrap())],
        vec![uri(URI), SanType::IpAddress("10.0.0.1".parse().unwrap())],
        vec![uri(URI), SanType::Rfc822Name("a@example.com".try_into().unwrap())],
        vec![SanType::DnsName(URI.try_into().unwrap())],
    ] {
        let refusal = forged(names.clone());
        assert!(matches!(refusal, Refusal::Names { .. }), "{names:?}: {refusal}");
    }
}

#[test]
fn weak_keys_are_refused_and_strong_ones_of_every_kind_taken() {
    let with = |key: &KeyPair| request_with(key, |_| {});
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let asked = Asked { request: with(&key), approved: true, ..asked() };
        let Verdict::Sign(grant) = review(&asked, Some(&live()), &house()) else { panic!("{algorithm:?}") };
        assert_eq!(grant.public_key.subject_public_key_info(), key.subject_public_key_info());
    }
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let asked = Asked { request: with(&rsa), approved: true, ..asked() };
    let Verdict::Sign(grant) = review(&asked, Some(&live()), &house()) else { panic!("RSA") };
    assert_eq!(grant.public_key.subject_public_key_info(), rsa.subject_public_key_info());
    for weak in
        [include_bytes!("testdata/rsa-1024.csr").to_vec(), include_bytes!("testdata/rsa-2040.csr").to_vec()]
    {
        let refusal = refusal(|a| a.request = weak);
        assert!(matches!(refusal, Refusal::Request(RequestError::Key(_))), "{refusal}");
    }
    let p521 = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(matches!(refusal(|a| a.request = with(&p521)), Refusal::Request(RequestError::Key(_))));
}

#[test]
fn requests_signed_by_another_key_or_changed_are_refused() {
    let pem = String::from_utf8(asked().request).unwrap();
    let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(URI)];
    let mut der = params.serialize_request(&mine).unwrap().der().to_vec();
    let (own, other) = (mine.public_key_raw(), theirs.public_key_raw());
    let at = der.windows(own.len()).position(|window| window == own).unwrap();
    der[at..at + own.len()].copy_from_slice(other);
    let stolen = k8s_openapi::ByteString(der);
    let stolen = serde_json::to_value(stolen).unwrap();
    let header = "CERTIFICATE REQUEST-----\n";
    let stolen = format!("-----BEGIN {header}{}\n-----END {header}", stolen.as_str().unwrap());
    assert_eq!(refusal(|a| a.request = stolen.into_bytes()), Refusal::Request(RequestError::Signature));
    let twice = format!("{pem}{pem}").into_bytes();
    assert_eq!(refusal(|a| a.request = twice), Refusal::Request(RequestError::Form));
    assert_eq!(refusal(|a| a.request.clear()), Refusal::Request(RequestError::Form));
}

#[test]
fn rights_beyond_a_clients_are_refused() {
    let ca = requests(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(ca, Refusal::Request(RequestError::Extension(_))), "{ca}");
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert!(matches!(
            requests(|p| p.key_usages = vec![usage]),
            Refusal::Request(RequestError::Extension(_))
        ));
    }
    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any] {
        assert!(matches!(
            requests(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, usage]),
            Refusal::Request(RequestError::Extension(_))
        ));
    }
    let unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    assert!(matches!(
        requests(|p| p.custom_extensions = vec![unknown]),
        Refusal::Request(RequestError::Extension(_))
    ));
    let usages = |usages: &[&str]| refusal(|a| a.usages = usages.iter().map(|u| (*u).to_owned()).collect());
    for wrong in [
        &["digital signature"][..],
        &[],
        &["client auth", "server auth"],
        &["client auth", "cert sign"],
        &["any", "client auth"],
    ] {
        assert!(matches!(usages(wrong), Refusal::Usages(_)), "{wrong:?}");
    }
    let modest = Asked {
        request: request_with(&KeyPair::generate().unwrap(), |p| {
            p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            p.is_ca = IsCa::ExplicitNoCa;
        }),
        ..asked()
    };
    assert_eq!(review(&modest, Some(&live()), &house()), Verdict::Approve);
}

#[test]
fn the_object_is_read_as_kubernetes_writes_it() {
    let json = |conditions: serde_json::Value, certificate: Option<&str>| {
        let object = serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "name": "linkspan-a-b" },
            "spec": { "signerName": SIGNER, "request": "AAEC", "username": "system:serviceaccount:linkspan:a",
                      "uid": "u", "usages": ["client auth"], "expirationSeconds": 700 },
            "status": { "conditions": conditions, "certificate": certificate },
        });
        Asked::of(&serde_json::from_value(object).unwrap())
    };
    let condition = |kind| serde_json::json!([{ "type": kind, "status": "True" }]);
    let plain = json(serde_json::json!([]), None);
    assert_eq!((plain.approved, plain.settled), (false, false));
    assert_eq!((plain.account("linkspan"), plain.request.as_slice()), (Some("a"), &[0, 1, 2][..]));
    assert!(json(condition("Approved"), None).approved);
    assert!(json(condition("Denied"), None).settled);
    assert!(json(condition("Failed"), None).settled);
    assert!(json(condition("Approved"), Some("AAAA")).settled);
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(request::read(&bytes).is_err());
    }

    #[test]
    fn a_broken_byte_never_passes(at in 0usize..400, with: u8) {
        let mut asked = asked();
        let at = at % asked.request.len();
        prop_assume!(asked.request[at] != with && !asked.request[at].is_ascii_whitespace() && !with.is_ascii_whitespace());
        let before = request::read(&asked.request).unwrap();
        asked.request[at] = with;
        // A change that base64 or PEM passes over leaves the request what it was.
        if let Ok(after) = request::read(&asked.request) {
            prop_assert_eq!(after, before);
        }
    }
}
