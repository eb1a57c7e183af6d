//! Good inputs of each target, from which the others are made.

use jiff::Timestamp;
use linkspan_core::api::identity::{Identity, TrustDomain};
use linkspan_mirror_controller::{
    credentials::certificate_need,
    issuer::{
        ca::{CertificateAuthority, LEAF_LIFETIME, Leaf, Usage},
        ca_history::CaHistory,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};

fn identity() -> Identity {
    "spiffe://u1.linkspan/ns/linkspan/sa/east".parse().unwrap()
}

/// Inputs for the target `name`.
pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "request" => requests(),
        "object" => objects(),
        "certificate" => certificates(),
        "kubeconfig" => vec![KUBECONFIG.into(), KUBECONFIG.replace(TOKEN, "opaque").into()],
        "token" => vec![TOKEN.into(), "a.b.c".into()],
        "history" => {
            let history =
                CaHistory::default().with("A\n", Timestamp::UNIX_EPOCH).with("B\n", Timestamp::UNIX_EPOCH);
            vec![history.text().into(), "[]".into()]
        }
        "serials" => vec!["serial=7F0A\n 0x00ab:CD # lost\n\n# why\nab cd\r\n".into()],
        _ => vec![],
    }
}

fn requests() -> Vec<Vec<u8>> {
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity().to_string().try_into().unwrap())];
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
    };
    let own = certificate_need::request(&KeyPair::generate().unwrap(), &identity()).unwrap();
    vec![
        own.spec.request.0,
        with(|_| {}),
        with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        with(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]),
        with(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        with(|p| p.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().unwrap()))),
    ]
}

fn objects() -> Vec<Vec<u8>> {
    let mut object = certificate_need::request(&KeyPair::generate().unwrap(), &identity()).unwrap();
    object.metadata.name = Some("linkspan-east-x".into());
    object.spec.username = Some("system:serviceaccount:linkspan:east".into());
    object.spec.uid = Some("u-1".into());
    let plain = serde_json::to_value(&object).unwrap();
    let mut approved = plain.clone();
    approved["status"] = serde_json::json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let mut signed = approved.clone();
    signed["status"]["certificate"] = "QUJD".into();
    [plain, approved, signed].iter().map(|value| value.to_string().into_bytes()).collect()
}

fn certificates() -> Vec<Vec<u8>> {
    let domain = TrustDomain::of_cluster("u1").unwrap();
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    let kept = CertificateAuthority::generate(&domain, [7; 16], now).unwrap();
    let ca = CertificateAuthority::load(&kept, &domain, now).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = Leaf {
        identity: &identity(),
        uid: Some("u-1"),
        usage: Usage::Client,
        public_key: &key,
        lifetime: LEAF_LIFETIME,
        serial: [3; 16],
    };
    let leaf = ca.sign(&leaf, now).unwrap();
    vec![
        leaf.clone().into_bytes(),
        kept.certificate.clone().into_bytes(),
        (leaf + &kept.certificate).into_bytes(),
    ]
}

/// Of account `linkspan/access` with uid `u-1`, for a day of 2026.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6bGlua3NwYW46YWNjZXNzIiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjczMTIwMDAsImt1YmVybmV0ZXMuaW8iOnsic2VydmljZWFjY291bnQiOnsidWlkIjoidS0xIn19fQ.c2ln";

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: west
contexts:
- name: west
  context: {cluster: west, user: west}
clusters:
- name: west
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: QUJD}
users:
- name: west
  user:
    token: eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6bGlua3NwYW46YWNjZXNzIiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjczMTIwMDAsImt1YmVybmV0ZXMuaW8iOnsic2VydmljZWFjY291bnQiOnsidWlkIjoidS0xIn19fQ.c2ln
";
