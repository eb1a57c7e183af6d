//! What the reports of this cluster's gateway pods mean: for a slice's endpoints, and for a Link as a whole. Pure.
//!
//! Readiness is per gateway pod, as each sees the target itself. A pod that is silent is not ready; when all are
//! silent at once the fault is likelier ours, so the last that each said holds, as long as Kubernetes calls it ready.

use crate::gateways::table::GatewayPod;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use linkspan_core::api::{gateway_report::LinkHealth, reason::Reason};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What may look different in slices after the gateway pods changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Every slice: a pod came, went, or is to be used otherwise.
    pub everything: bool,
    /// Slices of these links.
    pub links: BTreeSet<String>,
    /// Slices of the mirrors that hold these ports.
    pub ports: BTreeSet<u16>,
}

/// What the change from `old` to `new` can matter to.
pub fn touched(old: &BTreeMap<String, GatewayPod>, new: &BTreeMap<String, GatewayPod>) -> Touched {
    let mut touched = Touched { everything: all_silent(old) != all_silent(new), ..Touched::default() };
    for name in old.keys().chain(new.keys()) {
        let (Some(a), Some(b)) = (old.get(name), new.get(name)) else {
            touched.everything = true;
            continue;
        };
        touched.everything |= a.place != b.place || a.heard != b.heard || a.leaves() != b.leaves();
        let nothing = Default::default();
        let (a, b) = (a.report.as_ref().unwrap_or(&nothing), b.report.as_ref().unwrap_or(&nothing));
        let alive =
            |links: &BTreeMap<String, LinkHealth>, link| links.get(link).and_then(|h: &LinkHealth| h.alive);
        let links = a.links.keys().chain(b.links.keys());
        touched.links.extend(links.filter(|l| alive(&a.links, *l) != alive(&b.links, *l)).cloned());
        touched.ports.extend(a.bound.symmetric_difference(&b.bound));
    }
    touched
}

/// Whether pods have spoken before and none does now.
pub fn all_silent(pods: &BTreeMap<String, GatewayPod>) -> bool {
    pods.values().all(|p| !p.heard) && pods.values().any(|p| p.report.is_some())
}

/// Whether `pod` carries flows of link `link`. `blind`: see [`all_silent`].
pub fn serves(pod: &GatewayPod, link: &str, blind: bool) -> bool {
    let health = pod.report.as_ref().and_then(|r| r.links.get(link));
    speaks(pod, blind) && health.is_some_and(|h| h.alive == Some(true))
}

/// Whether what `pod` said last holds. `blind`: see [`all_silent`].
pub fn speaks(pod: &GatewayPod, blind: bool) -> bool {
    pod.heard || (blind && pod.place.kube_ready)
}

/// The gateway pods as endpoints of a slice of `family`; ready where `usable` says so, which is told whether the pods
/// are all silent.
pub fn endpoints(
    pods: &BTreeMap<String, GatewayPod>,
    family: &str,
    usable: impl Fn(&GatewayPod, bool) -> bool,
) -> Vec<Endpoint> {
    let blind = all_silent(pods);
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == (family == "IPv6");
    let address = |pod: &GatewayPod| pod.place.ips.iter().find(of_family).copied();
    pods.values()
        .filter_map(|pod| Some((pod, address(pod)?)))
        .map(|(pod, ip)| Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(conditions(pod, usable(pod, blind))),
            node_name: pod.place.node.clone(),
            // A pod that leaves looks for its own name here to learn when nobody is sent to it any more.
            target_ref: pod.place.target.clone(),
            zone: pod.place.zone.clone(),
            ..Endpoint::default()
        })
        .collect()
}

/// Conditions of `pod` as an endpoint. All three are always written: an absent one counts as ready.
pub fn conditions(pod: &GatewayPod, usable: bool) -> EndpointConditions {
    let leaves = usable && pod.leaves();
    EndpointConditions { ready: Some(usable && !leaves), serving: Some(usable), terminating: Some(leaves) }
}

/// How a Link's gateway fares, seen by all pods together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkLiveness {
    /// Whether any pod reaches it; `None` until one says so either way.
    pub alive: Option<bool>,
    /// Why it is not reached.
    pub reason: Option<Reason>,
    /// One sentence on the last failure.
    pub detail: Option<String>,
    /// Lowest latency of the pods that reach it, in milliseconds.
    pub latency_ms: Option<f64>,
    /// 50th, 95th and 99th percentile of the pod with the lowest latency.
    pub latency_percentiles_ms: Option<[f64; 3]>,
    /// Addresses in use by any pod.
    pub addresses: BTreeSet<String>,
    /// No pod reports any more; this is what they said last.
    pub stale: bool,
    /// How many gateway pods there are.
    pub pods: usize,
}

/// What `pods` say of link `link`.
pub fn of_link(pods: &BTreeMap<String, GatewayPod>, link: &str) -> LinkLiveness {
    let stale = all_silent(pods);
    let speaking = pods.values().filter(|p| stale || p.heard);
    let health: Vec<&LinkHealth> = speaking.filter_map(|p| p.report.as_ref()?.links.get(link)).collect();
    let alive: Vec<&&LinkHealth> = health.iter().filter(|h| h.alive == Some(true)).collect();
    let dead = health.iter().find(|h| h.alive == Some(false));
    let quickest = alive
        .iter()
        .filter(|h| h.latency_ms.is_some())
        .min_by(|a, b| a.latency_ms.unwrap_or_default().total_cmp(&b.latency_ms.unwrap_or_default()));
    LinkLiveness {
        alive: if alive.is_empty() { dead.map(|_| false) } else { Some(true) },
        reason: dead.filter(|_| alive.is_empty()).and_then(|h| h.reason),
        detail: dead.filter(|_| alive.is_empty()).and_then(|h| h.detail.clone()),
        latency_ms: quickest.and_then(|h| h.latency_ms),
        latency_percentiles_ms: quickest.and_then(|h| h.latency_percentiles_ms),
        addresses: health.iter().flat_map(|h| h.addresses.iter().cloned()).collect(),
        stale,
        pods: pods.len(),
    }
}

#[cfg(test)]
mod tests;
