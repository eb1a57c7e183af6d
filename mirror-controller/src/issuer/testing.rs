//! CAs and signers for tests elsewhere in this crate.

use crate::issuer::{
    ca::{CertificateAuthority, KeptCa, Leaf, Usage},
    review::{Asked, House, LiveAccount, Verdict, review},
};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use linkspan_core::api::identity::TrustDomain;

fn west() -> TrustDomain {
    TrustDomain::of_cluster("west").unwrap()
}

/// A CA of the cluster `west`; each number gives another one.
pub(crate) fn test_ca(number: u8) -> KeptCa {
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    CertificateAuthority::generate(&west(), [number; 16], now).unwrap()
}

/// What west's signer makes of `request` when the account that asked lives with uid `uid`.
pub(crate) fn sign_as_the_target(
    ca: &KeptCa,
    request: &CertificateSigningRequest,
    uid: &str,
    now: Timestamp,
) -> Result<String, String> {
    let house = House { trust_domain: west(), namespace: "linkspan".into() };
    let account = LiveAccount { uid: uid.into(), link_account: true };
    let asked = Asked { approved: true, ..Asked::of(request) };
    let grant = match review(&asked, Some(&account), &house) {
        Verdict::Sign(grant) => grant,
        Verdict::Fail(refusal) => return Err(refusal.to_string()),
        other => panic!("{other:?}"),
    };
    let leaf = Leaf {
        identity: &grant.identity,
        uid: Some(&grant.uid),
        usage: Usage::Client,
        public_key: &grant.public_key,
        lifetime: grant.lifetime,
        serial: [5; 16],
    };
    Ok(CertificateAuthority::load(ca, &west(), now).unwrap().sign(&leaf, now).unwrap())
}
