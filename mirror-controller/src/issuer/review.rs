//! Whether a linked cluster's gateway gets the certificate it asks for. Pure: the request, the account that asked and
//! the time go in, a verdict comes out.
//!
//! Guarantee: a certificate is granted only for the URI of the account that made the request, as the API server
//! recorded it, and only while that very account (same uid) lives and carries the label of link accounts. Approval by
//! a person changes none of that.

use crate::issuer::{
    ca::LEAF_LIFETIME,
    request::{self, Request, RequestError},
};
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use linkspan_core::api::{
    identity::{Identity, TrustDomain},
    labels::{LINK_ACCOUNT, SIGNER},
};
use rcgen::SubjectPublicKeyInfo;

/// Shortest life that Kubernetes lets anybody ask for.
const SHORTEST: i32 = 600;

/// A CertificateSigningRequest, as far as the review asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The object's name.
    pub name: String,
    /// Who should sign.
    pub signer: String,
    /// Who asked, as the API server says.
    pub username: String,
    /// Uid of who asked, as the API server says.
    pub uid: String,
    /// Usages asked for.
    pub usages: Vec<String>,
    /// Seconds asked for.
    pub expiration_seconds: Option<i32>,
    /// The request itself (PEM).
    pub request: Vec<u8>,
    /// Whether somebody approved it.
    pub approved: bool,
    /// Whether it was denied, failed, or has its certificate.
    pub settled: bool,
}

/// The ServiceAccount that asked, as it lives now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveAccount {
    /// Its uid.
    pub uid: String,
    /// Whether it carries the label of link accounts.
    pub link_account: bool,
}

/// Where accounts must live and what they may be certified for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct House {
    /// This cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// Namespace of the installation.
    pub namespace: String,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is not ours, or settled.
    Ignore,
    /// It passes: approve it.
    Approve,
    /// It is approved and passes: sign it.
    Sign(Grant),
    /// It does not pass: deny it.
    Deny(Refusal),
    /// It is approved, but does not pass: mark it as failed.
    Fail(Refusal),
}

/// What to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The account's identity.
    pub identity: Identity,
    /// The account's uid.
    pub uid: String,
    /// The key.
    pub public_key: SubjectPublicKeyInfo,
    /// How long it is good.
    pub lifetime: SignedDuration,
}

/// Why a request does not pass, as one sentence for its status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else than a ServiceAccount of the installation's namespace asked.
    #[error("{0:?} is no ServiceAccount of namespace {1}: only link accounts there get certificates")]
    NotAnAccount(String, String),
    /// The account is gone, or was made anew since.
    #[error("ServiceAccount {0} was deleted or made anew since it asked: link the clusters again")]
    AccountGone(String),
    /// The account is no link account.
    #[error(
        "ServiceAccount {0} does not carry the label {LINK_ACCOUNT}=true: make accounts with `link-cli allow`"
    )]
    NotALinkAccount(String),
    /// The object's name is not the account's to give.
    #[error("the request's name {0:?} does not begin with linkspan-{1}-: use generateName")]
    Name(String, String),
    /// Usages beyond those of a client.
    #[error(
        "usages {0:?} were asked for: client auth is needed, digital signature and key encipherment are possible"
    )]
    Usages(Vec<String>),
    /// The request itself is not sound.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// Names other than the account's own.
    #[error("the request asks for {asked:?}, but the account may have exactly {allowed:?}")]
    Names {
        /// What was asked for.
        asked: Vec<String>,
        /// The account's URI.
        allowed: String,
    },
}

impl Asked {
    /// Reads the object.
    pub fn of(object: &CertificateSigningRequest) -> Self {
        let (spec, status) = (&object.spec, object.status.as_ref());
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let has = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status != "False");
        let certified = status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty());
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            signer: spec.signer_name.clone(),
            username: spec.username.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            usages: spec.usages.clone().unwrap_or_default(),
            expiration_seconds: spec.expiration_seconds,
            request: spec.request.0.clone(),
            approved: has("Approved"),
            settled: has("Denied") || has("Failed") || certified,
        }
    }

    /// Whether anybody has to decide on it.
    pub fn is_open(&self) -> bool {
        self.signer == SIGNER && !self.settled
    }

    /// Name of the ServiceAccount of namespace `namespace` that asked.
    pub fn account(&self, namespace: &str) -> Option<&str> {
        let (home, account) = self.username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (home == namespace && !account.is_empty() && !account.contains(':')).then_some(account)
    }
}

/// Decides on `asked`, whose account lives as `account` says.
pub fn review(asked: &Asked, account: Option<&LiveAccount>, house: &House) -> Verdict {
    if !asked.is_open() {
        return Verdict::Ignore;
    }
    match (grant(asked, account, house), asked.approved) {
        (Ok(grant), true) => Verdict::Sign(grant),
        (Ok(_), false) => Verdict::Approve,
        (Err(refusal), true) => Verdict::Fail(refusal),
        (Err(refusal), false) => Verdict::Deny(refusal),
    }
}

/// What `asked` may have.
fn grant(asked: &Asked, account: Option<&LiveAccount>, house: &House) -> Result<Grant, Refusal> {
    let name = asked
        .account(&house.namespace)
        .ok_or_else(|| Refusal::NotAnAccount(asked.username.clone(), house.namespace.clone()))?;
    let account = account
        .filter(|account| !account.uid.is_empty() && account.uid == asked.uid)
        .ok_or_else(|| Refusal::AccountGone(name.to_owned()))?;
    if !account.link_account {
        return Err(Refusal::NotALinkAccount(name.to_owned()));
    }
    if !asked.name.starts_with(&format!("linkspan-{name}-")) {
        return Err(Refusal::Name(asked.name.clone(), name.to_owned()));
    }
    check_usages(&asked.usages)?;
    let Request { names, public_key } = request::read(&asked.request)?;
    let identity = Identity::link_account(house.trust_domain.clone(), &house.namespace, name);
    let allowed = identity.to_string();
    if names != [allowed.as_str()] {
        return Err(Refusal::Names { asked: names, allowed });
    }
    let longest = LEAF_LIFETIME;
    let lifetime = asked
        .expiration_seconds
        .map_or(longest, |seconds| SignedDuration::from_secs(i64::from(seconds.max(SHORTEST))).min(longest));
    Ok(Grant { identity, uid: account.uid.clone(), public_key, lifetime })
}

fn check_usages(usages: &[String]) -> Result<(), Refusal> {
    let possible = |usage: &str| matches!(usage, "digital signature" | "key encipherment" | "client auth");
    let fit = usages.iter().all(|usage| possible(usage)) && usages.iter().any(|usage| usage == "client auth");
    if fit { Ok(()) } else { Err(Refusal::Usages(usages.to_vec())) }
}

#[cfg(test)]
mod tests;
