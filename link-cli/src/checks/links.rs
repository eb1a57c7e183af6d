//! Checks of links and mirrors. Without links there is nothing to check.

use crate::{
    checks::{Category, Check, clocks, listed, mirrors, none_dubious, none_wrong, path, unknown},
    cli::VERSION,
    observe::{
        health::condition,
        installation::{Credentials, Installation},
    },
};
use linkspan_core::api::{controller_report::LinkReport, labels::CREATED_BY, link::Link};

/// All checks of links and mirrors.
pub fn links(seen: &Installation) -> Category {
    let mut checks = vec![];
    let health = &seen.health.links;
    match &seen.links {
        Err(e) => checks.push(unknown("Link resources are valid", e)),
        Ok(links) if !links.is_empty() => {
            checks.push(valid(links));
            checks.push(versions(links));
            checks.push(credentials(seen, links));
            checks.extend(clocks::expiry(health, seen.now));
            checks.push(connected(links, health));
            checks.extend(clocks::of_links(health));
            checks.extend(path::stages(health));
            checks.push(synced(health));
            checks.push(mirrors::all_mirrored(links));
        }
        Ok(_) => {}
    }
    if let Some(pods) = seen.gateways.as_ref().filter(|pods| !pods.is_empty()) {
        checks.extend(path::every_pod(pods, health));
        checks.extend(mirrors::ports_bound(pods));
    }
    if let (Ok(all), Ok(links)) = (&seen.mirrors, &seen.links) {
        checks.extend(mirrors::have_endpoints(all, health));
        checks.extend(mirrors::orphans(all, links));
        checks.extend(mirrors::port_range(all));
    }
    Category { name: "linkspan-links", checks }
}

fn name(link: &Link) -> &str {
    link.metadata.name.as_deref().unwrap_or_default()
}

fn names(links: &[Link]) -> impl Iterator<Item = String> {
    links.iter().map(|link| name(link).to_owned())
}

fn valid(links: &[Link]) -> Check {
    let wrong =
        links.iter().filter_map(|link| link.spec.settings().err().map(|e| format!("{}: {e}", name(link))));
    let advice = "correct the field, or apply the output of `link-cli link` again";
    none_wrong("Link resources are valid", names(links), wrong, advice)
}

fn versions(links: &[Link]) -> Check {
    let told = |link: &Link| {
        let made_by = link.metadata.annotations.as_ref().and_then(|all| all.get(CREATED_BY));
        let version = made_by.and_then(|text| text.rsplit_once(' ')).map(|(_, version)| version);
        match version {
            Some(VERSION) => None,
            Some(version) => {
                Some(format!("{}: CLI version is {VERSION} but Link version is {version}", name(link)))
            }
            None => Some(format!("{}: unable to determine version", name(link))),
        }
    };
    let advice = "apply the output of `link-cli link` of this version";
    none_dubious("Link and CLI versions match", [], links.iter().filter_map(told), advice)
}

fn credentials(seen: &Installation, links: &[Link]) -> Check {
    let description = "remote cluster access credentials are valid";
    let (mut wrong, mut pending) = (vec![], vec![]);
    for link in links {
        let name = name(link);
        let secret = link.spec.credentials_secret(name);
        match seen.credentials.get(name) {
            Some(Ok(Credentials::Missing)) => wrong.push(format!("{name}: Secret {secret} is missing")),
            Some(Ok(Credentials::Unusable)) => {
                wrong.push(format!("{name}: Secret {secret} holds no kubeconfig"));
            }
            // Without the right to read Secrets, the controller's word has to do.
            Some(Ok(Credentials::Present) | Err(_)) | None => {}
        }
        let status = link.status.clone().unwrap_or_default();
        match condition(&status.conditions, "CredentialsValid") {
            Some(c) if c.status == "False" => wrong.push(format!("{name}: {}: {}", c.reason, c.message)),
            Some(c) if c.status == "True" => {}
            Some(c) => pending.push(format!("{name}: {}: {}", c.reason, c.message)),
            None => pending.push(format!("{name}: not tried yet")),
        }
    }
    if wrong.is_empty() && !pending.is_empty() {
        return Check::pending(
            description,
            listed(pending).join("\n"),
            "see the log of the mirror controller",
        );
    }
    none_wrong(description, names(links), wrong, "apply the output of `link-cli link` again")
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

#[cfg(test)]
mod tests;
