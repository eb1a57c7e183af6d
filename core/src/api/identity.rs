//! Who a gateway is: SPIFFE URIs whose trust domain is the id of the cluster that signed.
//!
//! A cluster's id is the UID of its `kube-system` namespace. Names of clusters are the importer's own aliases and
//! never decide access. Form: <https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>.

use crate::api::labels::GATEWAY;
use std::{fmt, str::FromStr};

/// Object identifier of the subject attribute that carries the account's uid in a client certificate: the one
/// Kubernetes itself reads for the uid of a certificate's user.
pub const UID_ATTRIBUTE: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];

/// The trust domain of a cluster: `<uid of kube-system>.linkspan`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The trust domain of the cluster whose `kube-system` namespace has `uid`.
    pub fn of_cluster(uid: &str) -> Result<Self, IdentityError> {
        format!("{uid}.linkspan").parse()
    }

    /// The domain as it stands in a URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The cluster that signed.
    pub trust_domain: TrustDomain,
    /// Namespace of the account in that cluster.
    pub namespace: String,
    /// The account: the gateway itself, or the account a linked cluster signs in with.
    pub service_account: String,
}

/// Why a text is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text has another form than a workload identity.
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// The trust domain has characters SPIFFE does not allow.
    #[error("{0:?} is no trust domain: lower-case letters, digits, '-', '.', '_', at most 255")]
    TrustDomain(String),
}

impl Identity {
    /// The identity that gateways of the cluster `trust_domain`, installed in `namespace`, prove to their callers.
    pub fn gateway(trust_domain: TrustDomain, namespace: &str) -> Self {
        Self::link_account(trust_domain, namespace, GATEWAY)
    }

    /// The identity under which a linked cluster that signs in as `account` calls the cluster `trust_domain`, where
    /// the installation and its accounts are in `namespace`.
    pub fn link_account(trust_domain: TrustDomain, namespace: &str, account: &str) -> Self {
        Self { trust_domain, namespace: namespace.to_owned(), service_account: account.to_owned() }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || IdentityError::Form(text.to_owned());
        if text.len() > 2048 {
            return Err(form());
        }
        let path = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let parts: Vec<&str> = path.split('/').collect();
        let [domain, "ns", namespace, "sa", account] = parts[..] else { return Err(form()) };
        let segment = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if !segment(namespace) || !segment(account) {
            return Err(form());
        }
        Ok(Self {
            trust_domain: domain.parse()?,
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(td in "[a-z0-9._-]{1,60}", ns in "[a-z0-9][a-z0-9-]{0,20}", sa in "[a-z0-9][a-z0-9.-]{0,20}") {
            let identity = Identity { trust_domain: td.parse().unwrap(), namespace: ns, service_account: sa };
            prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }

    #[test]
    fn forms_that_only_look_alike_are_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "https://td/ns/a/sa/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
