//! The way from here to each linked gateway, step by step: name, connection, certificate, identity, admission, answer.

use crate::{
    checks::{Check, listed, none_dubious},
    observe::{gateways::GatewayPod, health::why},
};
use linkspan_core::api::{controller_report::LinkReport, reason::Reason};

/// What can be wrong on the way, in the order in which a connection meets it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Named,
    Exposed,
    Trusted,
    Expected,
    Admitted,
    Answering,
}

fn stage(reason: Option<Reason>) -> Stage {
    match reason {
        Some(Reason::Dns) => Stage::Named,
        Some(Reason::Refused | Reason::Timeout) => Stage::Exposed,
        Some(Reason::TlsTrust | Reason::TlsExpired) => Stage::Trusted,
        Some(Reason::Identity | Reason::WrongCluster) => Stage::Expected,
        Some(Reason::Policy | Reason::NoCredentials) => Stage::Admitted,
        _ => Stage::Answering,
    }
}

/// A stage, what its check is called, and what mends it.
const STAGES: [(Stage, &str, &str); 6] = [
    (
        Stage::Named,
        "host names of linked gateways resolve (DNS)",
        "correct spec.gatewayAddress of the Link, or mend this cluster's DNS",
    ),
    (
        Stage::Exposed,
        "gateways of linked clusters are exposed (TCP)",
        "the gateway is not exposed: in the linked cluster run `link-cli check`, see that Service linkspan-gateway has an address, and open its port in every firewall between the clusters",
    ),
    (
        Stage::Trusted,
        "gateways of linked clusters are trusted (TLS)",
        "trust mismatch: apply the output of `link-cli link` of the linked cluster again, which holds its CA",
    ),
    (
        Stage::Expected,
        "gateways of linked clusters are the expected ones (identity)",
        "see that spec.gatewayAddress leads to the cluster that spec.gatewayIdentity names, and that the link's account lives there (`link-cli allow list`)",
    ),
    (
        Stage::Admitted,
        "linked clusters admit this one (authorization)",
        "see condition CredentialsValid of the Link, and the rules of the linked cluster",
    ),
    (
        Stage::Answering,
        "gateways of linked clusters answer (round trip)",
        "see `link-cli gateways -o wide` and the log of the gateways in both clusters",
    ),
];

/// One check per stage. Of a gateway that fails an earlier stage the later ones say nothing.
pub(super) fn stages(links: &[LinkReport]) -> Vec<Check> {
    let mut checks = vec![];
    let mut reached: Vec<&LinkReport> = links.iter().collect();
    for (here, description, advice) in STAGES {
        let failed = |link: &LinkReport| link.alive != Some(true) && stage(link.reason) == here;
        let (broken, passed): (Vec<_>, Vec<_>) = reached.into_iter().partition(|link| failed(link));
        // A first verdict, and the first certificate, may still be on their way.
        let coming = |link: &&LinkReport| link.alive.is_none() || link.reason == Some(Reason::NoCredentials);
        let found = listed(broken.iter().map(|link| format!("{}: {}", link.name, why(link)))).join("\n");
        if broken.is_empty() && !passed.is_empty() {
            checks.push(Check::well(description, listed(passed.iter().map(|link| seen(link, here)))));
        } else if broken.iter().all(coming) && !broken.is_empty() {
            checks.push(Check::pending(description, found, advice));
        } else if !broken.is_empty() {
            checks.push(Check::wrong(description, found, advice));
        }
        reached = passed;
    }
    checks
}

fn seen(link: &LinkReport, stage: Stage) -> String {
    match (stage, link.latency_ms) {
        (Stage::Answering, Some(ms)) => format!("{}: {ms:.1} ms", link.name),
        (Stage::Exposed, _) if !link.addresses.is_empty() => {
            format!("{}: {}", link.name, link.addresses.join(", "))
        }
        _ => link.name.clone(),
    }
}

/// Whether every gateway pod says what all say together: a pod on a node that is cut off fails alone.
pub(super) fn every_pod(pods: &[GatewayPod], links: &[LinkReport]) -> Vec<Check> {
    let mut apart = vec![];
    let mut silent = vec![];
    for GatewayPod { pod, said } in pods {
        let place = format!("gateway pod {} on node {}", pod.name, pod.node);
        match said {
            Err(why) => silent.push(format!("{place}: {why}")),
            Ok(said) => {
                apart.extend(links.iter().filter(|link| link.alive == Some(true)).filter_map(|link| {
                    let here = said.links.get(&link.name)?;
                    let reason = here.reason.map_or("no reason", Reason::as_str);
                    (here.alive == Some(false))
                        .then(|| format!("{}: not reached by {place}: {reason}", link.name))
                }));
            }
        }
    }
    let names = || pods.iter().map(|entry| entry.pod.name.clone());
    let mut checks = vec![none_dubious(
        "gateway pods tell how they are",
        names(),
        silent,
        "see the pods' state and log, and network policies around port admin",
    )];
    if !links.is_empty() {
        checks.push(none_dubious(
            "every gateway pod reaches every living link",
            names(),
            apart,
            "see the node's network: routes and firewalls may differ between nodes",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::Verdict,
        observe::{gateways::Said, pods::OurPod},
    };
    use linkspan_core::api::gateway_report::LinkHealth;
    use std::collections::BTreeMap;

    #[test]
    fn every_reason_has_its_stage_and_only_that_one_fails() {
        for reason in Reason::ALL {
            let link = LinkReport {
                name: "west".into(),
                alive: Some(false),
                reason: Some(reason),
                ..LinkReport::default()
            };
            let checks = stages(&[link]);
            let failed: Vec<&Check> = checks.iter().filter(|check| check.failed()).collect();
            assert_eq!(failed.len(), 1, "{reason}");
            assert_eq!(failed[0], checks.last().unwrap(), "{reason}: later stages are not reached");
        }
    }

    #[test]
    fn a_pod_that_alone_does_not_reach_a_living_link_is_named() {
        let health =
            LinkHealth { alive: Some(false), reason: Some(Reason::Timeout), ..LinkHealth::default() };
        let said = Said { links: BTreeMap::from([("west".to_owned(), health)]), ..Said::default() };
        let pod = |name: &str| OurPod { name: name.into(), node: "n2".into(), ..OurPod::default() };
        let pods = [
            GatewayPod { pod: pod("a"), said: Ok(said) },
            GatewayPod { pod: pod("b"), said: Err("cut".into()) },
        ];
        let link = |alive| LinkReport { name: "west".into(), alive: Some(alive), ..LinkReport::default() };
        let found: Vec<String> = every_pod(&pods, &[link(true)])
            .into_iter()
            .map(|check| match check.verdict {
                Verdict::Warning(problem) => problem.found,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            found,
            ["* gateway pod b on node n2: cut", "* west: not reached by gateway pod a on node n2: timeout"]
        );
        assert!(
            matches!(every_pod(&pods[..1], &[link(false)])[1].verdict, Verdict::Well(_)),
            "said by the stages already"
        );
    }
}
