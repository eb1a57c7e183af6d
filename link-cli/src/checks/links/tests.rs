//! What `check` says of links, from facts as values.

use super::*;
use crate::checks::{
    Verdict, all_well, may_come,
    testing::{alive, link, mirror, seen},
};
use linkspan_core::api::{condition::Condition, reason::Reason};

fn dead(name: &str, reason: Reason) -> LinkReport {
    LinkReport { alive: Some(false), reason: Some(reason), ..alive(name) }
}

fn failed(category: &Category) -> Vec<(&str, &str)> {
    let failed = category.checks.iter().filter_map(|check| match &check.verdict {
        Verdict::Wrong(p) | Verdict::Pending(p) | Verdict::Warning(p) => {
            Some((check.description.as_str(), p.found.as_str()))
        }
        Verdict::Well(_) => None,
    });
    failed.collect()
}

#[test]
fn without_links_nothing_is_checked() {
    assert_eq!(links(&seen(vec![], vec![], vec![])).checks, []);
}

#[test]
fn a_living_link_passes_every_check() {
    let category = links(&seen(vec![link("west")], vec![alive("west")], vec![mirror("west", 2)]));
    assert_eq!(failed(&category), []);
    assert!(category.checks.len() >= 9, "{category:?}");
}

#[test]
fn not_exposed_and_another_trust_are_told_apart() {
    for (reason, expected) in [
        (Reason::Refused, "gateways of linked clusters are exposed (TCP)"),
        (Reason::Timeout, "gateways of linked clusters are exposed (TCP)"),
        (Reason::TlsTrust, "gateways of linked clusters are trusted (TLS)"),
        (Reason::WrongCluster, "gateways of linked clusters are the expected ones (identity)"),
        (Reason::Policy, "linked clusters admit this one (authorization)"),
    ] {
        let category = links(&seen(vec![link("west")], vec![dead("west", reason)], vec![]));
        let failed = failed(&category);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].0, expected);
        assert!(failed[0].1.contains(reason.advice()), "{failed:?}");
        assert!(!may_come(&[category]));
    }
}

#[test]
fn one_broken_link_does_not_hide_the_others() {
    let health = vec![dead("a", Reason::Dns), alive("b")];
    let category = links(&seen(vec![link("a"), link("b")], health, vec![]));
    let alive = category.checks.iter().find(|c| c.description.contains("answer (round trip)")).unwrap();
    assert_eq!(alive.verdict, Verdict::Well(vec!["* b".into()]));
}

#[test]
fn what_is_on_its_way_is_worth_waiting_for() {
    let mut fresh = link("west");
    fresh.status = None;
    let unknown = LinkReport { name: "west".into(), ..LinkReport::default() };
    let category = links(&seen(vec![fresh], vec![unknown], vec![]));
    assert!(may_come(std::slice::from_ref(&category)) && !all_well(&[category]));
    let category = links(&seen(vec![link("west")], vec![dead("west", Reason::NoCredentials)], vec![]));
    assert!(may_come(&[category]));
}

#[test]
fn credentials_are_judged_by_secret_and_condition() {
    let mut all = seen(vec![link("west")], vec![alive("west")], vec![]);
    all.credentials.insert("west".into(), Ok(Credentials::Missing));
    assert!(failed(&links(&all))[0].1.contains("cluster-credentials-west is missing"));
    all.credentials.insert("west".into(), Err("not allowed".into()));
    assert_eq!(failed(&links(&all)), [], "without rights the controller's word has to do");
    let mut expired = link("west");
    expired.status.as_mut().unwrap().conditions =
        vec![Condition::no("CredentialsValid", "TokenExpired", "it ended")];
    let all = seen(vec![expired], vec![alive("west")], vec![]);
    assert!(failed(&links(&all))[0].1.contains("TokenExpired: it ended"));
}

#[test]
fn empty_and_orphaned_mirrors_are_listed() {
    let category =
        links(&seen(vec![link("west")], vec![alive("west")], vec![mirror("west", 0), mirror("gone", 0)]));
    let failed = failed(&category);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed[0].1.contains("api-west.shop mirrored from cluster [west]") && !failed[0].1.contains("gone")
    );
    assert_eq!(failed[1].1, "* mirror service api-gone.shop is not part of any Link");
}

#[test]
fn a_field_that_cannot_be_used_and_another_version_are_named() {
    let mut wrong = link("west");
    wrong.spec.gateway_port = Some("x".into());
    wrong.metadata.annotations = None;
    let category = links(&seen(vec![wrong], vec![alive("west")], vec![]));
    let failed = failed(&category);
    assert!(
        failed[0].1.contains("spec.gatewayPort") && failed[1].1.contains("unable to determine version"),
        "{failed:?}"
    );
}
