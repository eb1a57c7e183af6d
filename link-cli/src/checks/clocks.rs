//! Whether clocks agree and nothing is out of its time: certificates and tokens of another time are refused.

use crate::{
    checks::{Check, none_dubious, none_wrong, unknown},
    observe::{
        certificates,
        health::Source,
        installation::{Answer, Installation},
    },
};
use jiff::{SignedDuration, Timestamp};
use linkspan_core::api::controller_report::LinkReport;

/// Clocks may differ by this much without a word: answers tell whole seconds only.
const UNSAID: SignedDuration = SignedDuration::from_secs(30);
/// Certificates begin this long before they are signed, so that clocks may differ by as much.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// Certificates and tokens of links live a day and are renewed when a third of it is left: with less than half of that,
/// renewing has failed for hours.
const RENEWAL_FAILS: SignedDuration = SignedDuration::from_hours(4);
/// A CA that ends this soon has to be replaced by a person.
const CA_ENDS: SignedDuration = SignedDuration::from_hours(24 * 60);

/// Whether this machine, the API server and the controller agree on the time.
pub(super) fn of_system(seen: &Installation) -> Option<Check> {
    let skew = seen.api_skew?;
    let description = "clocks agree";
    let mut apart = vec![];
    if skew.abs() > UNSAID {
        apart.push(format!("the API server's clock is {} this machine's", ahead(skew)));
    }
    let controller = match &seen.health.source {
        Source::Leader { now: Some(now), .. } => now.parse::<Timestamp>().ok(),
        _ => None,
    };
    if let Some(theirs) = controller {
        let skew = theirs.duration_since(seen.now + skew);
        if skew.abs() > UNSAID {
            apart.push(format!("the controller's clock is {} the API server's", ahead(skew)));
        }
    }
    Some(none_dubious(description, [], apart, "set the clocks by NTP"))
}

/// Whether the clocks of linked clusters agree with this one's.
pub(super) fn of_links(links: &[LinkReport]) -> Option<Check> {
    let description = "clocks of linked clusters agree with this one's";
    let known: Vec<(&str, SignedDuration)> = links
        .iter()
        .filter_map(|link| Some((link.name.as_str(), SignedDuration::from_secs(link.clock_skew_seconds?))))
        .collect();
    if known.is_empty() {
        return None;
    }
    let apart = |more_than: SignedDuration| {
        let apart = known.iter().filter(move |(_, skew)| skew.abs() > more_than);
        apart.map(|(name, skew)| format!("{name}: its clock is {} this cluster's", ahead(*skew)))
    };
    let advice = "set the clocks of both clusters by NTP: certificates begin 5m before they are signed, beyond that they are refused";
    if apart(BACKDATED).next().is_some() {
        return Some(none_wrong(description, [], apart(UNSAID), advice));
    }
    let names = known.iter().map(|(name, _)| (*name).to_owned());
    Some(none_dubious(description, names, apart(UNSAID), advice))
}

fn ahead(skew: SignedDuration) -> String {
    let size = crate::output::time_span(skew.abs());
    if skew.is_negative() { format!("{size} behind") } else { format!("{size} ahead of") }
}

/// What ends at a known time, for one link.
type Ends = fn(&LinkReport) -> Option<&String>;

/// Whether client certificates, and tokens for linked clusters' APIs, live and are renewed in time.
pub(super) fn expiry(links: &[LinkReport], now: Timestamp) -> Vec<Check> {
    let kinds: [(&str, Ends, &str); 2] = [
        (
            "client certificates are in their time",
            |link| link.certificate_expires_at.as_ref(),
            "renewing fails: see condition CredentialsValid of the Link and the mirror controller's log",
        ),
        (
            "tokens for linked clusters are in their time",
            |link| link.token_expires_at.as_ref(),
            "apply the output of `link-cli link` of the linked cluster again",
        ),
    ];
    let mut checks = vec![];
    for (description, ends, advice) in kinds {
        let known: Vec<(&str, Timestamp)> =
            links.iter().filter_map(|link| Some((link.name.as_str(), ends(link)?.parse().ok()?))).collect();
        if known.is_empty() {
            continue;
        }
        let before = |limit: Timestamp| {
            let ending = known.iter().filter(move |(_, ends)| *ends <= limit);
            ending.map(move |(name, ends)| format!("{name}: {}", until(*ends, now)))
        };
        checks.push(if before(now).next().is_some() {
            none_wrong(description, [], before(now), advice)
        } else {
            let names = known.iter().map(|(name, ends)| format!("{name}: {}", until(*ends, now)));
            none_dubious(description, names, before(now + RENEWAL_FAILS), advice)
        });
    }
    checks
}

fn until(ends: Timestamp, now: Timestamp) -> String {
    let left = ends.duration_since(now);
    let span = crate::output::time_span(left.abs());
    if left.is_positive() { format!("ends in {span}, at {ends:.0}") } else { format!("ended {span} ago") }
}

/// Whether this cluster's CA is published and lives long enough.
pub(super) fn authority(bundle: &Answer<Option<String>>, now: Timestamp) -> Check {
    let description = "CA bundle is published and in its time";
    let text = match bundle {
        Err(e) => return unknown(description, e),
        Ok(None) => {
            return Check::pending(
                description,
                "ConfigMap linkspan-ca-bundle is not written yet",
                "see the log of the mirror controller",
            );
        }
        Ok(Some(text)) => text,
    };
    let advice = "put another CA into Secret linkspan-ca";
    match certificates::read(text.as_bytes()).map(|all| all.into_iter().map(|c| c.not_after).max()) {
        Err(e) => Check::wrong(description, e, advice),
        Ok(None) => Check::wrong(description, "it holds no certificate", advice),
        Ok(Some(ends)) if ends <= now => Check::wrong(description, until(ends, now), advice),
        Ok(Some(ends)) if ends <= now + CA_ENDS => Check::warning(description, until(ends, now), advice),
        Ok(Some(ends)) => Check::well(description, vec![until(ends, now)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Verdict, testing::now};

    fn link(skew: i64, certificate: &str) -> LinkReport {
        LinkReport {
            name: "west".into(),
            clock_skew_seconds: Some(skew),
            certificate_expires_at: Some(certificate.into()),
            ..LinkReport::default()
        }
    }

    fn found(check: &Check) -> (&'static str, &str) {
        match &check.verdict {
            Verdict::Well(seen) => ("well", seen.first().map_or("", String::as_str)),
            Verdict::Warning(p) => ("warning", &p.found),
            Verdict::Pending(p) => ("pending", &p.found),
            Verdict::Wrong(p) => ("wrong", &p.found),
        }
    }

    #[test]
    fn clocks_may_differ_a_little_and_are_wrong_beyond_what_certificates_allow() {
        for (skew, expected) in [(-20, "well"), (90, "warning"), (-301, "wrong")] {
            let check = of_links(&[link(skew, "")]).unwrap();
            assert_eq!(found(&check).0, expected, "{skew}");
        }
        let check = of_links(&[link(-301, "")]).unwrap();
        assert_eq!(found(&check).1, "* west: its clock is 5m1s behind this cluster's");
        assert_eq!(of_links(&[LinkReport::default()]), None);
    }

    #[test]
    fn what_has_ended_is_wrong_and_what_should_have_been_renewed_a_warning() {
        for (ends, expected) in [
            ("2026-01-03T00:00:00Z", ("well", "* west: ends in 1d, at 2026-01-03T00:00:00Z")),
            ("2026-01-02T01:00:00Z", ("warning", "* west: ends in 1h, at 2026-01-02T01:00:00Z")),
            ("2026-01-01T23:59:00Z", ("wrong", "* west: ended 1m ago")),
        ] {
            let checks = expiry(&[link(0, ends)], now());
            assert_eq!(checks.len(), 1);
            assert_eq!(found(&checks[0]), expected);
        }
    }

    #[test]
    fn a_bundle_that_is_missing_may_come_and_one_that_holds_nothing_is_wrong() {
        assert_eq!(found(&authority(&Ok(None), now())).0, "pending");
        assert_eq!(found(&authority(&Ok(Some(String::new())), now())), ("wrong", "it holds no certificate"));
    }
}
