//! What each keeper of a link's credentials found, and the one condition that follows. Pure.

use crate::issuer::ca::TOLERATED_SKEW;
use jiff::SignedDuration;
use linkspan_core::api::condition::Condition;

/// Type of the condition that a Link's credentials give.
pub const CREDENTIALS_VALID: &str = "CredentialsValid";

/// What one keeper found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Fine,
    /// It works, but will not for ever: a reason and a sentence.
    Ailing(&'static str, String),
    /// Not known yet: a reason and a sentence.
    Pending(&'static str, String),
    /// It does not work: a reason and a sentence.
    Wrong(&'static str, String),
}

/// What all keepers of one link found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Access to the target cluster's API.
    pub access: Finding,
    /// The bundle that the target's gateway is checked by.
    pub bundle: Finding,
    /// The client certificate.
    pub certificate: Finding,
}

impl Default for Findings {
    fn default() -> Self {
        let pending =
            || Finding::Pending("Pending", "the credentials of this Link have not been read yet".to_owned());
        Self { access: pending(), bundle: pending(), certificate: pending() }
    }
}

impl Findings {
    /// The condition, not yet dated. What is wrong is said first, and of several the one the others follow from.
    pub fn condition(&self) -> Condition {
        let all = [&self.access, &self.bundle, &self.certificate];
        let first = |kind: fn(&Finding) -> Option<Condition>| all.into_iter().find_map(kind);
        let wrong = |finding: &Finding| match finding {
            Finding::Wrong(reason, message) => Some(Condition::no(CREDENTIALS_VALID, reason, message)),
            _ => None,
        };
        let pending = |finding: &Finding| match finding {
            Finding::Pending(reason, message) => Some(Condition::unknown(CREDENTIALS_VALID, reason, message)),
            _ => None,
        };
        let ailing = |finding: &Finding| match finding {
            Finding::Ailing(reason, message) => Some(Condition::yes(CREDENTIALS_VALID, reason, message)),
            _ => None,
        };
        first(wrong).or_else(|| first(pending)).or_else(|| first(ailing)).unwrap_or_else(|| {
            let message = "the target's API, its CA bundle and the client certificate can be used";
            Condition::yes(CREDENTIALS_VALID, "Valid", message)
        })
    }
}

/// The command that gives link `link` new credentials.
pub fn link_again(link: &str) -> String {
    format!("link-cli --context <target cluster> link --cluster-name {link} | kubectl apply -f -")
}

/// What clocks that differ are told as, while they differ by less than breaks anything.
const WORTH_TELLING: SignedDuration = SignedDuration::from_secs(30);

/// What is to be said of the clocks, where the target's is `ahead` of ours.
pub fn clocks(ahead: Option<SignedDuration>) -> Finding {
    match ahead {
        Some(ahead) if ahead.abs() > WORTH_TELLING => Finding::Ailing("ClockSkew", clocks_differ(ahead)),
        _ => Finding::Fine,
    }
}

/// One sentence on clocks that differ, with what mends it.
pub fn clocks_differ(ahead: SignedDuration) -> String {
    let side = if ahead.is_negative() { "behind" } else { "ahead of" };
    format!(
        "the target cluster's clock is {} s {side} this cluster's, up to {} s are tolerated: set both by NTP",
        ahead.abs().as_secs(),
        TOLERATED_SKEW.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_said_and_of_several_the_first() {
        let mut findings = Findings::default();
        let said = |findings: &Findings| (findings.condition().status, findings.condition().reason);
        assert_eq!(said(&findings), ("Unknown".into(), "Pending".into()));
        findings.certificate = Finding::Wrong("CertificateDenied", "no".into());
        assert_eq!(said(&findings), ("False".into(), "CertificateDenied".into()));
        findings.access = Finding::Wrong("TokenExpired", "late".into());
        assert_eq!(said(&findings), ("False".into(), "TokenExpired".into()));
        findings.access = Finding::Ailing("RenewalFailing", "soon".into());
        findings.certificate = Finding::Fine;
        assert_eq!(said(&findings), ("Unknown".into(), "Pending".into()));
        findings.bundle = Finding::Fine;
        assert_eq!(said(&findings), ("True".into(), "RenewalFailing".into()));
        findings.access = Finding::Fine;
        assert_eq!(said(&findings), ("True".into(), "Valid".into()));
    }

    #[test]
    fn clocks_that_differ_are_told_before_anything_breaks() {
        let seconds = |s| clocks(Some(SignedDuration::from_secs(s)));
        assert_eq!((clocks(None), seconds(30), seconds(-30)), (Finding::Fine, Finding::Fine, Finding::Fine));
        let Finding::Ailing("ClockSkew", text) = seconds(-120) else { panic!() };
        assert_eq!(
            text,
            "the target cluster's clock is 120 s behind this cluster's, up to 300 s are tolerated: set both by NTP"
        );
        assert!(matches!(seconds(31), Finding::Ailing(_, text) if text.contains("31 s ahead of")));
    }
}
