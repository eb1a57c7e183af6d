//! What is said of each Link: conditions, counts, and the Services that fail. Pure; [`publish`] writes it.

pub mod events;
pub mod publish;
pub mod verdict;

use crate::{
    credentials::LinkAccess,
    link::remotes::RemoteState,
    liveness::LinkLiveness,
    snapshot::{Counts, Origin, Snapshot},
};
use jiff::Timestamp;
use linkspan_core::api::{
    condition::{Condition, dated},
    controller_report::LinkReport,
    labels::CONTROLLER,
    link::{Link, LinkStatus, ObjectRef, ServiceCounts, ServiceStatus},
};
use std::time::Duration;

/// Most failing Services that a status lists.
const MAX_LISTED: usize = 100;
/// A latency is written at most this often.
const LATENCY_PERIOD: Duration = Duration::from_secs(60);

/// Everything known of one Link.
pub struct Facts<'a> {
    /// The Link with the status it has.
    pub link: &'a Link,
    /// Its name.
    pub name: &'a str,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// How its target's API is reached.
    pub remote: &'a RemoteState,
    /// How its gateway fares.
    pub liveness: &'a LinkLiveness,
    /// Its credentials.
    pub access: &'a LinkAccess,
}

/// The status the Link should have. `latency_age`: how long ago its latency was written.
pub fn of_link(facts: &Facts<'_>, latency_age: Duration, now: Timestamp) -> LinkStatus {
    let old = facts.link.status.clone().unwrap_or_default();
    let counts = facts.snapshot.counts(facts.name);
    // A controller that has just begun, or does not reach the target, knows less than what stands written.
    let knows_all = facts.remote.listed && counts.pending == 0;
    let told = if knows_all { None } else { old.services.clone() };
    let conditions =
        vec![connected(facts), synced(facts, counts), gateway_alive(facts), facts.access.condition.clone()];
    let remote = &facts.remote.gateway_addresses;
    LinkStatus {
        conditions: dated(&old.conditions, conditions, now),
        gateway_addresses: if remote.is_empty() { old.gateway_addresses.clone() } else { remote.clone() },
        latency_ms: latency(old.latency_ms, facts.liveness, latency_age),
        certificate_expires_at: facts.access.certificate_expires_at.map(|t| format!("{t:.0}")),
        token_expires_at: facts.access.token_expires_at.map(|t| format!("{t:.0}")),
        mirror_services: if told.is_some() { old.mirror_services.clone() } else { failing(facts, &old, now) },
        services: Some(told.unwrap_or_else(|| ServiceCounts {
            mirrored: number(counts.mirrored),
            failing: number(counts.failing),
        })),
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A latency is worth a write when it moved by a quarter and 5 ms, once a minute.
fn latency(old: Option<f64>, liveness: &LinkLiveness, age: Duration) -> Option<f64> {
    let round = |ms: f64| (ms * 10.0).round() / 10.0;
    let new = liveness.latency_ms.filter(|_| liveness.alive == Some(true)).map(round);
    match (old, new) {
        (Some(old), Some(new)) => {
            let moved = (new - old).abs();
            Some(if age >= LATENCY_PERIOD && moved >= 5.0 && moved >= old * 0.25 { new } else { old })
        }
        (None, new) => new,
        (Some(old), None) => (liveness.alive != Some(false)).then_some(old),
    }
}

fn connected(facts: &Facts<'_>) -> Condition {
    const KIND: &str = "Connected";
    let lost = facts.remote.lost.as_ref();
    match (facts.remote.connected, lost) {
        (Some(true), _) => Condition::yes(KIND, "Connected", "the target cluster's API answers"),
        (_, Some(lost)) => {
            let advice = match lost.reason {
                "Unauthorized" | "Forbidden" => "apply the output of `link-cli link` for this cluster again",
                "NotFound" => "install Linkspan in the target cluster",
                _ => "check that the target's API server is reachable from this cluster's pods",
            };
            let message =
                format!("the target cluster's exports cannot be watched: {}; {advice}", lost.message);
            Condition::no(KIND, lost.reason, message)
        }
        _ if facts.access.client.is_none() => {
            let message = format!("no working credentials yet: {}", facts.access.condition.message);
            Condition::no(KIND, "NoCredentials", message)
        }
        _ => Condition::unknown(KIND, "Connecting", "the target cluster's API has not answered yet"),
    }
}

fn synced(facts: &Facts<'_>, counts: Counts) -> Condition {
    const KIND: &str = "Synced";
    if let Err(error) = facts.link.spec.mirroring(facts.name) {
        return Condition::no(KIND, "InvalidLink", error.to_string());
    }
    if let Some((what, lost)) = facts.snapshot.lost.iter().next() {
        let advice = match lost.reason {
            "Unauthorized" | "Forbidden" => {
                "; apply what `link-cli install` prints again: it grants the rights"
            }
            _ => "",
        };
        let message = format!("{what} of this cluster cannot be watched: {}{advice}", lost.message);
        return Condition::no(KIND, "LocalApi", message);
    }
    if facts.remote.connected == Some(false) {
        let why = facts.remote.lost.as_ref().map_or("", |lost| &lost.message);
        let since = facts.remote.since.map(|t| format!(", not reached since {t:.0}")).unwrap_or_default();
        let message =
            format!("mirrors stay as they were when the target cluster was last seen{since}: {why}");
        return Condition::no(KIND, "Disconnected", message);
    }
    if !facts.remote.listed {
        let message = "the target cluster's exports have not been listed since the controller started; mirrors stay as they are";
        return Condition::no(KIND, "NotListed", message);
    }
    if counts.failing > 0 {
        let message = format!("{} Services cannot be mirrored; see status.mirrorServices", counts.failing);
        return Condition::yes(KIND, "SomeFailing", message);
    }
    Condition::yes(KIND, "Synced", "the mirrors equal what the target cluster exports")
}

fn gateway_alive(facts: &Facts<'_>) -> Condition {
    const KIND: &str = "GatewayAlive";
    if let Err(error) = facts.link.spec.settings() {
        return Condition::no(KIND, "InvalidLink", error.to_string());
    }
    let liveness = facts.liveness;
    if liveness.stale {
        let message = "no gateway pod of this cluster reports to the controller; this is what they said last: \
                       check the pods of Deployment linkspan-gateway and the network policies around port admin";
        return match liveness.alive {
            Some(true) => Condition::yes(KIND, "LastKnown", message),
            Some(false) => Condition::no(KIND, "LastKnown", message),
            None => Condition::unknown(KIND, "LastKnown", message),
        };
    }
    match (liveness.alive, liveness.reason) {
        (Some(true), _) => Condition::yes(KIND, "Alive", "the target's gateway answers probes"),
        (Some(false), Some(reason)) => {
            let message = reason.with_advice(liveness.detail.as_deref());
            Condition::no(KIND, &camel(reason.as_str()), message)
        }
        (Some(false), None) => Condition::no(KIND, "Dead", "the target's gateway does not answer probes"),
        (None, _) if liveness.pods == 0 => {
            let message = "this cluster has no gateway pod: check Deployment linkspan-gateway";
            Condition::unknown(KIND, "NoGatewayPods", message)
        }
        (None, _) => Condition::unknown(KIND, "Probing", "no gateway pod has a verdict yet"),
    }
}

/// `tls-trust` as `TlsTrust`.
fn camel(word: &str) -> String {
    let upper = |part: &str| {
        part.chars()
            .next()
            .map(|c| c.to_ascii_uppercase())
            .into_iter()
            .chain(part.chars().skip(1))
            .collect::<String>()
    };
    word.split('-').map(upper).collect()
}

fn failing(facts: &Facts<'_>, old: &LinkStatus, now: Timestamp) -> Vec<ServiceStatus> {
    let told = facts.snapshot.troubles(facts.name).filter_map(|(origin, v)| Some((origin, v.condition()?)));
    // Those that fail come before those that merely lack a port.
    let (fail, lack): (Vec<_>, Vec<_>) = told.partition(|(_, condition)| condition.status == "False");
    fail.into_iter()
        .chain(lack)
        .take(MAX_LISTED)
        .map(|(origin, condition)| {
            let remote_ref = remote_ref(origin);
            let before = old.mirror_services.iter().find(|s| s.remote_ref == remote_ref);
            let before = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
            ServiceStatus {
                controller_name: CONTROLLER.to_owned(),
                conditions: dated(before, vec![condition], now),
                remote_ref,
            }
        })
        .collect()
}

fn remote_ref(origin: &Origin) -> ObjectRef {
    let name = match &origin.host {
        Some(host) => format!("{host}.{}", origin.service),
        None => origin.service.clone(),
    };
    ObjectRef { group: String::new(), kind: "Service".to_owned(), name, namespace: origin.namespace.clone() }
}

/// What `link-cli gateways` shows of the Link.
pub fn report(facts: &Facts<'_>) -> LinkReport {
    let counts = facts.snapshot.counts(facts.name);
    LinkReport {
        name: facts.name.to_owned(),
        alive: facts.liveness.alive,
        reason: facts.liveness.reason,
        detail: facts.liveness.detail.clone(),
        latency_ms: facts.liveness.latency_ms,
        latency_percentiles_ms: facts.liveness.latency_percentiles_ms,
        addresses: facts.liveness.addresses.iter().cloned().collect(),
        connected: facts.remote.connected,
        synced: Some(synced(facts, counts).status == "True"),
        mirrored_services: number(counts.mirrored),
        failing_services: number(counts.failing),
        certificate_expires_at: facts.access.certificate_expires_at.map(|t| format!("{t:.0}")),
        token_expires_at: facts.access.token_expires_at.map(|t| format!("{t:.0}")),
        clock_skew_seconds: facts.remote.clock_skew_seconds,
    }
}

#[cfg(test)]
mod tests;
