//! Checks of links and mirrors. Without links there is nothing to check.

use crate::{
    checks::{Category, Check},
    cli::VERSION,
    observe::{
        health::{condition, why},
        installation::{Credentials, Installation},
        mirrors::Mirror,
    },
};
use linkspan_core::api::{controller_report::LinkReport, labels::CREATED_BY, link::Link, reason::Reason};

/// All checks of links and mirrors.
pub fn links(seen: &Installation) -> Category {
    let mut checks = vec![];
    match &seen.links {
        Err(e) => checks.push(Check::wrong("Link resources are valid", e, "ask for the right to list Links")),
        Ok(links) if !links.is_empty() => {
            checks.push(valid(links));
            checks.push(versions(links));
            checks.push(credentials(seen, links));
            checks.push(connected(links, &seen.health));
            checks.extend(gateways(&seen.health));
            checks.push(synced(&seen.health));
        }
        Ok(_) => {}
    }
    if let (Ok(mirrors), Ok(links)) = (&seen.mirrors, &seen.links) {
        checks.extend(mirrors_have_endpoints(mirrors, links));
        checks.extend(orphans(mirrors, links));
    }
    Category { name: "linkspan-links", checks }
}

fn name(link: &Link) -> &str {
    link.metadata.name.as_deref().unwrap_or_default()
}

fn listed(names: impl IntoIterator<Item = String>) -> Vec<String> {
    names.into_iter().map(|name| format!("* {name}")).collect()
}

fn valid(links: &[Link]) -> Check {
    let description = "Link resources are valid";
    let wrong: Vec<String> = links
        .iter()
        .filter_map(|link| link.spec.settings().err().map(|e| format!("* {}: {e}", name(link))))
        .collect();
    if wrong.is_empty() {
        return Check::well(description, listed(links.iter().map(|link| name(link).to_owned())));
    }
    Check::wrong(
        description,
        wrong.join("\n"),
        "correct the field, or apply the output of `link-cli link` again",
    )
}

fn versions(links: &[Link]) -> Check {
    let description = "Link and CLI versions match";
    let told = |link: &Link| {
        let made_by = link.metadata.annotations.as_ref().and_then(|all| all.get(CREATED_BY));
        let version = made_by.and_then(|text| text.rsplit_once(' ')).map(|(_, version)| version);
        match version {
            Some(VERSION) => None,
            Some(version) => {
                Some(format!("* {}: CLI version is {VERSION} but Link version is {version}", name(link)))
            }
            None => Some(format!("* {}: unable to determine version", name(link))),
        }
    };
    let other: Vec<String> = links.iter().filter_map(told).collect();
    if other.is_empty() {
        return Check::well(description, vec![]);
    }
    Check::warning(description, other.join("\n"), "apply the output of `link-cli link` of this version")
}

fn credentials(seen: &Installation, links: &[Link]) -> Check {
    let description = "remote cluster access credentials are valid";
    let advice = "apply the output of `link-cli link` again";
    let (mut wrong, mut pending) = (vec![], vec![]);
    for link in links {
        let name = name(link);
        let secret = link.spec.credentials_secret(name);
        match seen.credentials.get(name) {
            Some(Ok(Credentials::Missing)) => wrong.push(format!("* {name}: Secret {secret} is missing")),
            Some(Ok(Credentials::Unusable)) => {
                wrong.push(format!("* {name}: Secret {secret} holds no kubeconfig"));
            }
            // Without the right to read Secrets, the controller's word has to do.
            Some(Ok(Credentials::Present) | Err(_)) | None => {}
        }
        let status = link.status.clone().unwrap_or_default();
        match condition(&status.conditions, "CredentialsValid") {
            Some(c) if c.status == "False" => wrong.push(format!("* {name}: {}: {}", c.reason, c.message)),
            Some(c) if c.status == "True" => {}
            _ => pending.push(format!("* {name}: not tried yet")),
        }
    }
    if !wrong.is_empty() {
        return Check::wrong(description, wrong.join("\n"), advice);
    }
    if !pending.is_empty() {
        return Check::pending(description, pending.join("\n"), "see the log of the mirror controller");
    }
    Check::well(description, listed(links.iter().map(|link| name(link).to_owned())))
}

fn connected(links: &[Link], health: &[LinkReport]) -> Check {
    let description = "Kubernetes APIs of linked clusters answer";
    let message = |name: &str| {
        let link = links.iter().find(|link| link.metadata.name.as_deref() == Some(name));
        let status = link.and_then(|link| link.status.as_ref());
        let told = status.and_then(|status| condition(&status.conditions, "Connected"));
        told.map(|c| format!(": {}", c.message)).unwrap_or_default()
    };
    by_answer(
        description,
        health,
        |link| link.connected,
        message,
        "check that the address in the link's credentials is reachable from this cluster's pods; mirrors stay as they are until it is",
    )
}

fn synced(health: &[LinkReport]) -> Check {
    let description = "mirrors are in step with linked clusters";
    let failing = |name: &str| {
        let link = health.iter().find(|link| link.name == name);
        link.filter(|l| l.failing_services > 0)
            .map(|l| format!(": {} Services fail", l.failing_services))
            .unwrap_or_default()
    };
    by_answer(
        description,
        health,
        |link| link.synced,
        failing,
        "see `kubectl describe` of the Link: its conditions and failing Services",
    )
}

fn by_answer(
    description: &str,
    health: &[LinkReport],
    answer: impl Fn(&LinkReport) -> Option<bool>,
    message: impl Fn(&str) -> String,
    advice: &str,
) -> Check {
    let with = |wanted: Option<bool>| -> Vec<String> {
        let links = health.iter().filter(|link| answer(link) == wanted);
        listed(links.map(|link| format!("{}{}", link.name, message(&link.name))))
    };
    let (no, unknown) = (with(Some(false)), with(None));
    if !no.is_empty() {
        return Check::wrong(description, no.join("\n"), advice);
    }
    if !unknown.is_empty() {
        return Check::pending(description, unknown.join("\n"), "see the log of the mirror controller");
    }
    Check::well(description, with(Some(true)))
}

/// What can be wrong between here and a gateway, in the order in which a connection meets it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Exposed,
    Trusted,
    Answering,
}

fn stage(reason: Option<Reason>) -> Stage {
    match reason {
        Some(Reason::Dns | Reason::Refused | Reason::Timeout) => Stage::Exposed,
        Some(Reason::TlsTrust | Reason::TlsExpired | Reason::Identity | Reason::WrongCluster) => {
            Stage::Trusted
        }
        _ => Stage::Answering,
    }
}

/// Three checks from one verdict, so that "not exposed" and "another trust" are told apart. Of a gateway that fails an
/// earlier stage the later ones say nothing.
fn gateways(health: &[LinkReport]) -> Vec<Check> {
    let stages = [
        (Stage::Exposed, "gateways of linked clusters are exposed"),
        (Stage::Trusted, "gateways of linked clusters are the expected ones"),
        (Stage::Answering, "gateways of linked clusters are alive"),
    ];
    let mut checks = vec![];
    let mut reached: Vec<&LinkReport> = health.iter().collect();
    for (here, description) in stages {
        let failed = |link: &LinkReport| link.alive != Some(true) && stage(link.reason) == here;
        let (broken, passed): (Vec<_>, Vec<_>) = reached.into_iter().partition(|link| failed(link));
        // A first verdict, and the first certificate, may still be on their way.
        let coming = |link: &&LinkReport| link.alive.is_none() || link.reason == Some(Reason::NoCredentials);
        let found = broken
            .iter()
            .map(|link| format!("* {}: {}", link.name, why(link)))
            .collect::<Vec<_>>()
            .join("\n");
        if broken.is_empty() && !passed.is_empty() {
            checks.push(Check::well(description, listed(passed.iter().map(|link| link.name.clone()))));
        } else if !broken.is_empty() {
            let advice = "see `link-cli gateways -o wide`";
            let all_coming = broken.iter().all(coming);
            checks.push(if all_coming {
                Check::pending(description, found, advice)
            } else {
                Check::wrong(description, found, advice)
            });
        }
        reached = passed;
    }
    checks
}

fn mirrors_have_endpoints(mirrors: &[Mirror], links: &[Link]) -> Option<Check> {
    let description = "all mirror services have endpoints";
    let of_links: Vec<&Mirror> =
        mirrors.iter().filter(|mirror| links.iter().any(|link| name(link) == mirror.link)).collect();
    if of_links.is_empty() {
        return None;
    }
    let empty: Vec<String> = of_links
        .iter()
        .filter(|mirror| mirror.ready == 0)
        .map(|mirror| {
            format!("* {}.{} mirrored from cluster [{}]", mirror.name, mirror.namespace, mirror.link)
        })
        .collect();
    if empty.is_empty() {
        return Some(Check::well(description, vec![]));
    }
    let advice =
        "see whether the Service has ready pods in the target cluster, and whether its gateway is alive";
    Some(Check::wrong(
        description,
        format!("Some mirror services do not have endpoints:\n{}", empty.join("\n")),
        advice,
    ))
}

fn orphans(mirrors: &[Mirror], links: &[Link]) -> Option<Check> {
    let description = "all mirror services are part of a Link";
    if mirrors.is_empty() {
        return None;
    }
    let orphans: Vec<String> = mirrors
        .iter()
        .filter(|mirror| !links.iter().any(|link| name(link) == mirror.link))
        .map(|mirror| {
            format!("* mirror service {}.{} is not part of any Link", mirror.name, mirror.namespace)
        })
        .collect();
    if orphans.is_empty() {
        return Some(Check::well(description, vec![]));
    }
    let advice =
        "the mirror controller removes them when it runs; else `link-cli unlink --cluster-name NAME --yes`";
    Some(Check::warning(description, orphans.join("\n"), advice))
}

#[cfg(test)]
mod tests;
