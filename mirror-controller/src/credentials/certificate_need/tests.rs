//! Both sides of a certificate's life meet here: what we ask for is what the signer's review grants, and what it signs
//! is what we take for good.

use super::*;
use crate::issuer::{
    ca::{CertificateAuthority, Leaf, Usage},
    sign_as_the_target, test_ca,
};
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};

use proptest::prelude::*;

const NOW: &str = "2026-03-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn identity() -> Identity {
    Identity::link_account("west.linkspan".parse().unwrap(), "linkspan", "access")
}

/// A request as the API server keeps it.
fn kept(key: &KeyPair) -> CertificateSigningRequest {
    let mut request = request(key, &identity()).unwrap();
    request.metadata.name = Some("linkspan-access-7x2kp".into());
    request.spec.username = Some("system:serviceaccount:linkspan:access".into());
    request.spec.uid = Some("u-1".into());
    request
}

#[test]
fn what_is_asked_for_is_granted_and_what_is_signed_is_good_until_two_thirds_of_its_life() {
    let (ca, key) = (test_ca(1), KeyPair::generate().unwrap());
    let pem = sign_as_the_target(&ca, &kept(&key), "u-1", at(NOW)).unwrap();
    let (identity, bundle) = (identity(), Some(ca.certificate.as_str()));
    let expected = Expected { key: &key, identity: &identity, uid: "u-1", bundle };
    let (renew_at, expires_at) = (at("2026-03-02T03:58:20Z"), at("2026-03-02T12:00:00Z"));
    assert_eq!(need(Some(&pem), &expected, at(NOW)), Need::Nothing { renew_at, expires_at });
    assert_eq!(
        need(Some(&pem), &expected, renew_at),
        Need::Another { why: "two thirds of its life are over", usable_until: Some(expires_at) }
    );
    let useless = |why| Need::Another { why, usable_until: None };
    assert_eq!(need(Some(&pem), &expected, expires_at), useless("the present one has ended"));
    assert_eq!(need(None, &expected, at(NOW)), useless("there is none"));
    assert_eq!(need(Some("x"), &expected, at(NOW)), useless("the present one cannot be read"));
}

#[test]
fn another_key_identity_account_or_root_asks_for_another_certificate() {
    let (ca, key) = (test_ca(1), KeyPair::generate().unwrap());
    let pem = sign_as_the_target(&ca, &kept(&key), "u-1", at(NOW)).unwrap();
    let why = |key: &KeyPair, identity: &Identity, uid: &str, bundle: Option<&str>| match need(
        Some(&pem),
        &Expected { key, identity, uid, bundle },
        at(NOW),
    ) {
        Need::Another { why, usable_until: None } => why,
        other => panic!("{other:?}"),
    };
    let (mine, other) = (identity(), KeyPair::generate().unwrap());
    assert_eq!(why(&other, &mine, "u-1", None), "the present one is for another key");
    let moved = Identity { trust_domain: "north.linkspan".parse().unwrap(), ..mine.clone() };
    assert_eq!(why(&key, &moved, "u-1", None), "the present one is for another identity");
    assert_eq!(why(&key, &mine, "u-2", None), "the account was made anew");
    let changed = test_ca(2).certificate;
    assert_eq!(
        why(&key, &mine, "u-1", Some(&changed)),
        "the target's bundle no longer covers the present one"
    );
    let both = format!("{changed}{}", ca.certificate);
    let expected = Expected { key: &key, identity: &mine, uid: "u-1", bundle: Some(&both) };
    assert!(
        matches!(need(Some(&pem), &expected, at(NOW)), Need::Nothing { .. }),
        "while both roots are there"
    );
}

#[test]
fn an_account_made_anew_cannot_use_the_request_of_its_predecessor() {
    let key = KeyPair::generate().unwrap();
    let refused = sign_as_the_target(&test_ca(1), &kept(&key), "u-2", at(NOW)).unwrap_err();
    assert!(refused.contains("deleted or made anew"), "{refused}");
}

#[test]
fn the_request_is_what_the_contract_says() {
    let request = request(&KeyPair::generate().unwrap(), &identity()).unwrap();
    assert_eq!(request.metadata.generate_name.as_deref(), Some("linkspan-access-"));
    assert_eq!(request.metadata.name, None);
    assert_eq!(request.spec.signer_name, "linkspan.dev/gateway-client");
    assert_eq!(request.spec.usages, Some(vec!["digital signature".into(), "client auth".into()]));
    assert_eq!(
        request.spec.expiration_seconds.map(|s| SignedDuration::from_secs(s.into()).as_hours()),
        Some(24)
    );
}

#[test]
fn answers_are_read() {
    let key = KeyPair::generate().unwrap();
    let with = |kind: &str, certificate: Option<&[u8]>| {
        let condition = CertificateSigningRequestCondition {
            type_: kind.into(),
            status: "True".into(),
            message: Some("why".into()),
            ..CertificateSigningRequestCondition::default()
        };
        let status = CertificateSigningRequestStatus {
            conditions: Some(vec![condition]),
            certificate: certificate.map(|pem| ByteString(pem.to_vec())),
        };
        answer(&CertificateSigningRequest { status: Some(status), ..kept(&key) })
    };
    assert_eq!(answer(&kept(&key)), Answer::Waiting);
    assert_eq!(with("Approved", None), Answer::Waiting);
    assert_eq!(with("Approved", Some(b"")), Answer::Waiting);
    assert_eq!(with("Approved", Some(b"PEM")), Answer::Signed("PEM".into()));
    assert_eq!(with("Denied", None), Answer::Denied("why".into()));
    assert_eq!(with("Failed", None), Answer::Failed("why".into()));
}

#[test]
fn clocks_that_differ_by_five_minutes_are_tolerated_and_more_is_told() {
    let (ca, key) = (test_ca(1), KeyPair::generate().unwrap());
    let pem = sign_as_the_target(&ca, &kept(&key), "u-1", at(NOW)).unwrap();
    let (identity, bundle) = (identity(), Some(ca.certificate.as_str()));
    let expected = Expected { key: &key, identity: &identity, uid: "u-1", bundle };
    for (here, ahead) in [("2026-03-01T11:55:00Z", 300), (NOW, 0), ("2026-03-01T20:00:00Z", -8 * 3600)] {
        assert!(matches!(need(Some(&pem), &expected, at(here)), Need::Nothing { .. }), "{here}");
        assert_eq!(target_is_ahead(&pem, at(here)), Some(SignedDuration::from_secs(ahead)));
    }
    let behind = "2026-03-01T11:54:59Z";
    let why = "the present one is not valid yet by this cluster's clock";
    assert_eq!(need(Some(&pem), &expected, at(behind)), Need::Another { why, usable_until: None });
    assert_eq!(target_is_ahead(&pem, at(behind)), Some(SignedDuration::from_secs(301)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_asked_for_signed_and_read_is_the_same(
        account in "[a-z][a-z0-9-]{0,20}[a-z0-9]", uid in "[0-9a-f]{8}-[0-9a-f]{4}", serial: [u8; 16],
        hours in 1i64..24, start in 1_500_000_000i64..4_000_000_000,
    ) {
        let identity = Identity::link_account("west.linkspan".parse().unwrap(), "linkspan", &account);
        let key = KeyPair::generate().unwrap();
        let made = request(&key, &identity).unwrap();
        let read = crate::issuer::request::read(&made.spec.request.0).unwrap();
        prop_assert_eq!(&read.names, &vec![identity.to_string()]);
        prop_assert_eq!(read.public_key.subject_public_key_info(), key.subject_public_key_info());
        let now = Timestamp::from_second(start).unwrap();
        let domain = &identity.trust_domain;
        let kept = CertificateAuthority::generate(domain, [9; 16], now).unwrap();
        let ca = CertificateAuthority::load(&kept, domain, now).unwrap();
        let lifetime = SignedDuration::from_hours(hours);
        let leaf = Leaf { identity: &identity, uid: Some(&uid), usage: Usage::Client, public_key: &read.public_key, lifetime, serial };
        let certificate = Certificate::first_of(&ca.sign(&leaf, now).unwrap()).unwrap();
        prop_assert_eq!(&certificate.uris, &read.names);
        prop_assert_eq!(certificate.uid.as_deref(), Some(uid.as_str()));
        prop_assert_eq!(certificate.common_name.as_deref(), Some(account.as_str()));
        prop_assert_eq!((certificate.not_before, certificate.not_after), (now - TOLERATED_SKEW, now + lifetime));
        prop_assert_eq!(&certificate.public_key, &key.subject_public_key_info());
        let tail: String = serial[1..].iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert!(certificate.serial.ends_with(&tail) && certificate.serial.len() == 32, "{}", certificate.serial);
    }
}
