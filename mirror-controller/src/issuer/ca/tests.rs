//! The CA signs what gateways accept, and nothing unusable is taken for a CA.

use super::*;
use rcgen::{GeneralSubtree, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::of_cluster("0b7f3c9e").unwrap()
}

const NOW: &str = "2026-03-01T12:00:00Z";

fn kept(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> KeptCa {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    KeptCa { certificate: params.self_signed(key).unwrap().pem(), key: key.serialize_pem() }
}

fn refusal(kept: &KeptCa, now: &str) -> String {
    CertificateAuthority::load(kept, &domain(), at(now)).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_ca_that_was_made_lives_ten_years_and_names_its_trust_domain() {
    let kept = CertificateAuthority::generate(&domain(), [7; 16], at(NOW)).unwrap();
    let facts = Certificate::first_of(&kept.certificate).unwrap();
    assert!(facts.is_ca);
    assert_eq!(facts.uris, ["spiffe://0b7f3c9e.linkspan"]);
    assert_eq!(facts.not_before, at("2026-03-01T11:55:00Z"));
    assert_eq!(facts.not_after, at(NOW) + CA_LIFETIME);
    let ca = CertificateAuthority::load(&kept, &domain(), at(NOW)).unwrap();
    assert_eq!(ca.bundle(), kept.certificate);
    assert!(refusal(&kept, "2036-12-01T00:00:00Z").contains("renew it"));
}

#[test]
fn what_is_signed_is_accepted_for_its_usage_and_its_time_only() {
    let kept = CertificateAuthority::generate(&domain(), [7; 16], at(NOW)).unwrap();
    let ca = CertificateAuthority::load(&kept, &domain(), at(NOW)).unwrap();
    let identity = Identity::link_account(domain(), "linkspan", "linkspan-remote-access-default");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let leaf = |usage, lifetime| Leaf {
        identity: &identity,
        uid: Some("4f1c"),
        usage,
        public_key: &key,
        lifetime,
        serial: [0xff; 16],
    };
    let pem = ca.sign(&leaf(Usage::Client, SignedDuration::from_hours(1)), at(NOW)).unwrap();
    let facts = Certificate::first_of(&pem).unwrap();
    assert_eq!(facts.uris, [identity.to_string()]);
    assert_eq!(facts.alternative_names, 1);
    assert_eq!(facts.common_name.as_deref(), Some("linkspan-remote-access-default"));
    assert_eq!(facts.uid.as_deref(), Some("4f1c"));
    assert_eq!(facts.not_before, at("2026-03-01T11:55:00Z"));
    assert_eq!(facts.not_after, at("2026-03-01T13:00:00Z"));
    assert_eq!(facts.serial, format!("7f{}", "ff".repeat(15)));
    assert_eq!(facts.public_key, key.subject_public_key_info());
    assert!(!facts.is_ca);
    assert_eq!(accepted_from_client(ca.bundle(), &pem, at(NOW)), Ok(()));
    accepted_from_server(ca.bundle(), &pem, at(NOW)).unwrap_err();
    accepted_from_client(ca.bundle(), &pem, at("2026-03-01T13:00:01Z")).unwrap_err();
    accepted_from_client(ca.bundle(), &pem, at("2026-03-01T11:54:00Z")).unwrap_err();
    let other = CertificateAuthority::generate(&domain(), [8; 16], at(NOW)).unwrap();
    accepted_from_client(&other.certificate, &pem, at(NOW)).unwrap_err();
    accepted_from_client("", &pem, at(NOW)).unwrap_err();

    let long = ca.sign(&leaf(Usage::Server, SignedDuration::from_hours(1000)), at(NOW)).unwrap();
    assert_eq!(Certificate::first_of(&long).unwrap().not_after, at("2026-03-02T12:00:00Z"));
    assert_eq!(accepted_from_server(ca.bundle(), &long, at(NOW)), Ok(()));
}

#[test]
fn nothing_outlives_the_ca() {
    let kept = kept(|p| p.not_after = date_time_ymd(2026, 3, 2), &KeyPair::generate().unwrap());
    let ca = CertificateAuthority::load(&kept, &domain(), at(NOW)).unwrap();
    assert_eq!(ca.not_after(), at("2026-03-02T00:00:00Z"));
    let identity = Identity::gateway(domain(), "linkspan");
    let key = KeyPair::generate().unwrap();
    let (usage, lifetime) = (Usage::Server, LEAF_LIFETIME);
    let leaf = Leaf { identity: &identity, uid: None, usage, public_key: &key, lifetime, serial: [1; 16] };
    let pem = ca.sign(&leaf, at(NOW)).unwrap();
    assert_eq!(Certificate::first_of(&pem).unwrap().not_after, at("2026-03-02T00:00:00Z"));
}

#[test]
fn cas_of_other_makers_are_used_as_they_are() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let mut kept = kept(|_| {}, &KeyPair::generate_for(algorithm).unwrap());
        let own = kept.certificate.clone();
        let above = CertificateAuthority::generate(&domain(), [9; 16], at(NOW)).unwrap();
        kept.certificate = kept.certificate.replace('\n', "\r\n") + &above.certificate;
        let ca = CertificateAuthority::load(&kept, &domain(), at(NOW)).unwrap();
        assert_eq!(ca.bundle(), own, "what is above the signing CA is not trusted");
    }
}

#[test]
fn what_makes_a_ca_unusable_is_said_with_its_mend() {
    let key = || KeyPair::generate().unwrap();
    let good = kept(|_| {}, &key());
    let other = KeptCa { certificate: good.certificate.clone(), key: key().serialize_pem() };
    assert!(refusal(&other, NOW).contains("put the pair there that belongs together"));
    let broken = KeptCa { certificate: good.certificate.clone(), key: "secret".into() };
    let text = refusal(&broken, NOW);
    assert!(text.contains("tls.key of the CA is no private key") && !text.contains("secret\""), "{text}");
    let empty = KeptCa { certificate: String::new(), key: good.key };
    assert!(refusal(&empty, NOW).contains("put a CA certificate"));
    assert!(refusal(&kept(|p| p.is_ca = IsCa::NoCa, &key()), NOW).contains("is no CA"));
    assert!(refusal(&kept(|p| p.not_after = date_time_ymd(2026, 1, 1), &key()), NOW).contains("renew it"));
    assert!(refusal(&kept(|p| p.not_before = date_time_ymd(2027, 1, 1), &key()), NOW).contains("renew it"));
    let constrained = |p: &mut CertificateParams| {
        let corporate = NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DirectoryName({
                let mut name = DistinguishedName::new();
                name.push(DnType::OrganizationName, "Example");
                name
            })],
            excluded_subtrees: vec![],
        };
        p.name_constraints = Some(corporate);
    };
    assert!(refusal(&kept(constrained, &key()), NOW).contains("what it signs is not accepted"));
}

#[test]
fn private_keys_are_taken_as_other_tools_write_them() {
    // openssl ecparam -genkey -name prime256v1; its key stands behind a block of parameters.
    let sec1 = include_str!("testdata/ca-sec1.key");
    assert!(sec1.contains("EC PARAMETERS") && sec1.contains("EC PRIVATE KEY"));
    // openssl genrsa -traditional 2048.
    let pkcs1 = include_str!("testdata/ca-pkcs1.key");
    assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY"));
    for text in [sec1, pkcs1] {
        let key = private_key(text).unwrap_or_else(|e| panic!("{e}"));
        let made = KeptCa { key: text.to_owned(), ..kept(|_| {}, &key) };
        let ca = CertificateAuthority::load(&made, &domain(), at(NOW)).unwrap();
        assert_eq!(ca.bundle(), made.certificate);
    }
}
