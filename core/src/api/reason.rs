//! Why a probe or a flow failed: one short word, the same in logs, metrics, status and `check`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a gateway could not be reached, or would not carry a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The gateway's host name has no address.
    Dns,
    /// The gateway's address refused the connection.
    Refused,
    /// No answer in time.
    Timeout,
    /// A certificate that the other side's roots did not sign.
    TlsTrust,
    /// A certificate outside its time.
    TlsExpired,
    /// A certificate of somebody else than expected, or of an account that is gone.
    Identity,
    /// Denied by a rule.
    Policy,
    /// The Service or port is not exported.
    NotExported,
    /// The Service has no endpoint that is ready.
    NoEndpoints,
    /// The gateway that answered belongs to another cluster than the Link names.
    WrongCluster,
    /// No certificate or bundle for this link yet.
    NoCredentials,
    /// The other side is shutting down.
    Draining,
    /// The other side broke the tunnel's rules, or speaks none we know.
    Protocol,
    /// Anything else: the log line has the details.
    Internal,
    /// More at once, or more often, than one caller may.
    Limit,
}

impl Reason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Reason; 15] = [
        Reason::Dns,
        Reason::Refused,
        Reason::Timeout,
        Reason::TlsTrust,
        Reason::TlsExpired,
        Reason::Identity,
        Reason::Policy,
        Reason::NotExported,
        Reason::NoEndpoints,
        Reason::WrongCluster,
        Reason::NoCredentials,
        Reason::Draining,
        Reason::Protocol,
        Reason::Internal,
        Reason::Limit,
    ];

    /// The word used in logs, metrics, status and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Dns => "dns",
            Reason::Refused => "refused",
            Reason::Timeout => "timeout",
            Reason::TlsTrust => "tls-trust",
            Reason::TlsExpired => "tls-expired",
            Reason::Identity => "identity",
            Reason::Policy => "policy",
            Reason::NotExported => "not-exported",
            Reason::NoEndpoints => "no-endpoints",
            Reason::WrongCluster => "wrong-cluster",
            Reason::NoCredentials => "no-credentials",
            Reason::Draining => "draining",
            Reason::Protocol => "protocol",
            Reason::Internal => "internal",
            Reason::Limit => "limit",
        }
    }

    /// The byte that stands for this reason on the wire. Never reuse one.
    pub fn code(self) -> u8 {
        Self::ALL.iter().position(|r| *r == self).map_or(u8::MAX, |i| i as u8)
    }

    /// The reason a byte on the wire stands for; one we do not know (a newer peer's) is [`Reason::Internal`].
    pub fn from_code(code: u8) -> Reason {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Reason::Internal)
    }

    /// What a person should look at first.
    pub fn advice(self) -> &'static str {
        match self {
            Reason::Dns => {
                "the gateway's host name does not resolve here: check spec.gatewayAddress of the Link and this cluster's DNS"
            }
            Reason::Refused => {
                "nothing listens at the gateway's address: check that the gateway of the target cluster runs and that its Service exposes port mc-gateway"
            }
            Reason::Timeout => {
                "the gateway's address does not answer: check firewalls and that the address is reachable from this cluster's pods"
            }
            Reason::TlsTrust => {
                "the target gateway's certificate is not signed by the CA this Link knows: apply the output of `link-cli link` again"
            }
            Reason::TlsExpired => {
                "a certificate is outside its time: check the clocks of both clusters and the mirror controller's log"
            }
            Reason::Identity => {
                "the certificate is not for the expected identity, was denied, or its account was deleted: apply the output of `link-cli link` again"
            }
            Reason::Policy => "a rule of the target cluster denies this caller",
            Reason::NotExported => {
                "the Service is not exported: label it mirror.linkerd.io/exported=true in the target cluster"
            }
            Reason::NoEndpoints => "the Service has no ready endpoint in the target cluster",
            Reason::WrongCluster => {
                "another cluster's gateway answers at this address: check spec.gatewayAddress of the Link"
            }
            Reason::NoCredentials => "no certificate for this Link yet: check the Link's conditions",
            Reason::Draining => "the target gateway is shutting down; another one takes over",
            Reason::Protocol => {
                "the two gateways do not speak the same tunnel protocol: check their versions"
            }
            Reason::Internal => "see the gateway's log",
            Reason::Limit => {
                "the target gateway allows one caller no more: see its flags --max-flows-per-peer and --handshake-rate-per-address"
            }
        }
    }
}

impl Reason {
    /// What a gateway told of a failure, and what to look at first; both once, as some gateways tell the second too.
    pub fn with_advice(self, detail: Option<&str>) -> String {
        let advice = self.advice();
        match detail.filter(|detail| !detail.is_empty()) {
            None => advice.to_owned(),
            Some(detail) if detail.contains(advice) => detail.to_owned(),
            Some(detail) => format!("{detail}; {advice}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_name_one_reason_each() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(reason.code()), i);
            assert_eq!(Reason::from_code(reason.code()), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(Reason::from_code(200), Reason::Internal);
    }

    #[test]
    fn the_advice_is_given_once() {
        let advice = Reason::Policy.advice();
        assert_eq!(Reason::Policy.with_advice(None), advice);
        assert_eq!(Reason::Policy.with_advice(Some("10.0.0.1:4143")), format!("10.0.0.1:4143; {advice}"));
        let told = format!("the gateway refuses this caller (policy): {advice}");
        assert_eq!(Reason::Policy.with_advice(Some(&told)), told);
    }
}
