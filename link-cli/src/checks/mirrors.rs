//! Checks of mirrors, and of the gateways' ports that carry them.

use crate::{
    checks::{Check, none_dubious, none_wrong},
    observe::{gateways::GatewayPod, mirrors::Mirror},
};
use linkspan_core::api::{controller_report::LinkReport, labels::EGRESS_PORTS, link::Link};
use std::collections::BTreeSet;

/// From this share of the ports on, a warning is due.
const NEARLY_ALL: f64 = 0.8;

fn name(link: &Link) -> &str {
    link.metadata.name.as_deref().unwrap_or_default()
}

/// Services that are wanted and have no mirror, or not all of it: conflicts with Services that are not ours, taken
/// names, missing namespaces.
pub(super) fn all_mirrored(links: &[Link]) -> Check {
    let told = |wanted: &'static str| {
        links.iter().flat_map(move |link| {
            let services = link.status.iter().flat_map(|status| &status.mirror_services);
            let condition = services.filter_map(|s| Some((s, s.conditions.first()?)));
            condition.filter(move |(_, c)| c.status == wanted).map(move |(service, c)| {
                let remote = &service.remote_ref;
                format!("{}: {}.{}: {}: {}", name(link), remote.name, remote.namespace, c.reason, c.message)
            })
        })
    };
    let description = "all selected services are mirrored";
    let advice = "each line says what is in the way; `kubectl describe` of the Link lists the same";
    if told("False").next().is_some() {
        return none_wrong(description, [], told("False"), advice);
    }
    none_dubious(description, [], told("True"), advice)
}

/// Mirrors of living links without an endpoint. Of links that are not alive the checks of the way tell.
pub(super) fn have_endpoints(mirrors: &[Mirror], health: &[LinkReport]) -> Option<Check> {
    let alive = |mirror: &&Mirror| health.iter().any(|l| l.alive == Some(true) && l.name == mirror.link);
    let of_links: Vec<&Mirror> = mirrors.iter().filter(alive).collect();
    if of_links.is_empty() {
        return None;
    }
    let empty = of_links.iter().filter(|mirror| mirror.ready == 0).map(|mirror| {
        format!("{}.{} mirrored from cluster [{}]", mirror.name, mirror.namespace, mirror.link)
    });
    let advice = "see whether the Service has ready pods in the linked cluster: `link-cli diagnostics endpoints NAME` tells where it ends";
    let mut check = none_wrong("all mirror services have endpoints", [], empty, advice);
    if let crate::checks::Verdict::Wrong(problem) = &mut check.verdict {
        problem.found.insert_str(0, "Some mirror services do not have endpoints:\n");
    }
    Some(check)
}

/// Mirrors whose Link is gone.
pub(super) fn orphans(mirrors: &[Mirror], links: &[Link]) -> Option<Check> {
    if mirrors.is_empty() {
        return None;
    }
    let orphans = mirrors
        .iter()
        .filter(|mirror| !links.iter().any(|link| name(link) == mirror.link))
        .map(|mirror| format!("mirror service {}.{} is not part of any Link", mirror.name, mirror.namespace));
    let advice =
        "the mirror controller removes them when it runs; else `link-cli unlink --cluster-name NAME --yes`";
    Some(none_dubious("all mirror services are part of a Link", [], orphans, advice))
}

/// Whether the gateways' ports last.
pub(super) fn port_range(mirrors: &[Mirror]) -> Option<Check> {
    let used: BTreeSet<u16> =
        mirrors.iter().flat_map(|mirror| mirror.gateway_ports.iter().copied()).collect();
    if used.is_empty() {
        return None;
    }
    let description = "ports of the gateways are left";
    let (first, last) = EGRESS_PORTS;
    let size = usize::from(last - first) + 1;
    let share = format!("{} of {size} ports from {first} to {last} are in use", used.len());
    let advice = "mirror fewer Services: narrow spec.selector of the Links, or the exported ports by annotation linkspan.dev/export-ports";
    #[allow(clippy::cast_precision_loss, reason = "both are below 2^16")]
    let part = used.len() as f64 / size as f64;
    Some(if used.len() >= size {
        Check::wrong(description, share, advice)
    } else if part >= NEARLY_ALL {
        Check::warning(description, share, advice)
    } else {
        Check::well(description, vec![share])
    })
}

/// Whether every gateway pod listens on every port, and nothing else claims one.
pub(super) fn ports_bound(pods: &[GatewayPod]) -> Option<Check> {
    let speaking: Vec<_> =
        pods.iter().filter_map(|pod| Some((&pod.pod.name, pod.said.as_ref().ok()?))).collect();
    if speaking.is_empty() {
        return None;
    }
    let wrong = speaking.iter().flat_map(|(pod, said)| {
        let unbound = said
            .unbound
            .iter()
            .map(move |port| format!("{pod}: port {} cannot be bound: {}", port.port, port.error));
        let conflicts =
            said.conflicts.iter().map(move |text| format!("{pod}: two slices claim a port: {text}"));
        let problems = said.problems.iter().map(move |text| format!("{pod}: credentials: {text}"));
        unbound.chain(conflicts).chain(problems).collect::<Vec<_>>()
    });
    let advice = "another process of the pod's network has the port, or a slice was changed by hand: delete that slice, and the controller writes it anew";
    let names = speaking.iter().map(|(pod, _)| (*pod).clone());
    Some(none_wrong("gateways can use all ports and credentials", names, wrong, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::Verdict,
        observe::{gateways::Said, pods::OurPod},
    };
    use linkspan_core::api::{
        condition::Condition,
        gateway_report::UnboundPort,
        link::{LinkSpec, LinkStatus, ObjectRef, ServiceStatus},
    };

    #[test]
    fn a_conflict_is_told_with_its_reason() {
        let mut link = Link::new("west", LinkSpec::default());
        let service = ServiceStatus {
            remote_ref: ObjectRef { name: "api".into(), namespace: "shop".into(), ..ObjectRef::default() },
            conditions: vec![Condition::no("Mirrored", "Conflict", "Service shop/api-west is in the way")],
            ..ServiceStatus::default()
        };
        link.status = Some(LinkStatus { mirror_services: vec![service], ..LinkStatus::default() });
        let check = all_mirrored(&[link]);
        let Verdict::Wrong(problem) = check.verdict else { panic!("{check:?}") };
        assert_eq!(problem.found, "* west: api.shop: Conflict: Service shop/api-west is in the way");
    }

    #[test]
    fn nearly_used_up_ports_are_a_warning() {
        let with = |count: u16| Mirror {
            gateway_ports: (EGRESS_PORTS.0..EGRESS_PORTS.0 + count).collect(),
            ..Mirror::default()
        };
        assert!(matches!(port_range(&[with(10)]).unwrap().verdict, Verdict::Well(_)));
        assert!(matches!(port_range(&[with(20_000)]).unwrap().verdict, Verdict::Warning(_)));
        assert!(port_range(&[with(22_768)]).unwrap().failed());
        assert_eq!(port_range(&[]), None);
    }

    #[test]
    fn a_port_that_a_pod_cannot_bind_is_named() {
        let said =
            Said { unbound: vec![UnboundPort { port: 10_007, error: "in use".into() }], ..Said::default() };
        let pod = OurPod { name: "gw-1".into(), ..OurPod::default() };
        let check = ports_bound(&[GatewayPod { pod, said: Ok(said) }]).unwrap();
        assert!(format!("{check:?}").contains("gw-1: port 10007 cannot be bound: in use"), "{check:?}");
    }

    #[test]
    fn long_lists_are_cut() {
        let mirrors: Vec<Mirror> = (0..5000)
            .map(|i| Mirror { name: format!("api-{i}"), link: "gone".into(), ..Mirror::default() })
            .collect();
        let check = orphans(&mirrors, &[]).unwrap();
        let Verdict::Warning(problem) = check.verdict else { panic!("{check:?}") };
        assert_eq!(problem.found.lines().count(), 21);
        assert!(problem.found.ends_with("... and 4980 more"), "{}", problem.found);
    }
}
