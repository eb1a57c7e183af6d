//! Facts for tests of the checks.

use crate::{
    cli::VERSION,
    manifests::{object::Key, values::Values},
    observe::{
        exports::Exports,
        health::{Health, Source},
        installation::{Credentials, Installation, wanted_roles},
        mirrors::Mirror,
    },
};
use jiff::Timestamp;
use linkspan_core::api::{
    condition::Condition,
    controller_report::LinkReport,
    labels::CREATED_BY,
    link::{Link, LinkSpec, LinkStatus},
};
use std::collections::BTreeMap;

/// The time of all tests.
pub(super) fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

/// A Link as `link-cli link` makes it, with credentials that work.
pub(super) fn link(name: &str) -> Link {
    let identity = Some("spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".to_owned());
    let mut link = Link::new(name, LinkSpec { gateway_identity: identity, ..LinkSpec::default() });
    let conditions = vec![Condition::yes("CredentialsValid", "Valid", "")];
    link.status = Some(LinkStatus { conditions, ..LinkStatus::default() });
    link.metadata.annotations = Some([(CREATED_BY.to_owned(), format!("linkspan/cli {VERSION}"))].into());
    link
}

/// A link that is well.
pub(super) fn alive(name: &str) -> LinkReport {
    let yes = Some(true);
    LinkReport {
        name: name.into(),
        alive: yes,
        connected: yes,
        synced: yes,
        clock_skew_seconds: Some(0),
        certificate_expires_at: Some("2026-01-02T20:00:00Z".into()),
        token_expires_at: Some("2026-01-02T20:00:00Z".into()),
        ..LinkReport::default()
    }
}

/// A mirror that link `link` brought.
pub(super) fn mirror(link: &str, ready: usize) -> Mirror {
    Mirror {
        namespace: "shop".into(),
        name: format!("api-{link}"),
        link: link.into(),
        ready,
        gateway_ports: vec![10_000],
        ..Mirror::default()
    }
}

/// An installation where everything else is well.
pub(super) fn seen(links: Vec<Link>, health: Vec<LinkReport>, mirrors: Vec<Mirror>) -> Installation {
    let roles = wanted_roles("linkspan", &links, &Values::default());
    Installation {
        context: "east".into(),
        namespace: "linkspan".into(),
        now: now(),
        api_skew: None,
        api_version: Ok("v1.34.0".into()),
        definitions: Ok(BTreeMap::new()),
        namespace_exists: Ok(true),
        workloads: Ok(BTreeMap::new()),
        values: Values::default(),
        roles: Ok(roles.iter().map(|role| (Key::of(role), Some(role["rules"].clone()))).collect()),
        gateway_service: Ok(None),
        bundle: Ok(None),
        exports: Ok(Exports::default()),
        credentials: links
            .iter()
            .map(|link| (link.metadata.name.clone().unwrap_or_default(), Ok(Credentials::Present)))
            .collect(),
        links: Ok(links),
        health: Health { links: health, source: Source::Leader { pod: "controller".into(), now: None } },
        gateways: Some(vec![]),
        mirrors: Ok(mirrors),
    }
}
