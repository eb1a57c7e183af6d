//! This cluster's gateway pods: where they are, and what each says of itself. Pure.

use k8s_openapi::api::core::v1::ObjectReference;
use linkspan_core::api::gateway_report::{Event, LinkHealth};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// One gateway pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayPod {
    /// Where it is, as the slices of the gateway's Service say.
    pub place: Place,
    /// What it said last; `None` until it said anything.
    pub report: Option<Report>,
    /// Whether its stream is open and not silent.
    pub heard: bool,
}

/// Where a gateway pod is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The pod as its own EndpointSlice names it.
    pub target: Option<ObjectReference>,
    /// Its addresses, at most one per family.
    pub ips: BTreeSet<IpAddr>,
    /// Node it runs on.
    pub node: Option<String>,
    /// Zone it runs in.
    pub zone: Option<String>,
    /// Whether Kubernetes sends it traffic.
    pub kube_ready: bool,
    /// Whether Kubernetes is ending it.
    pub terminating: bool,
}

/// What a gateway pod says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// It is leaving.
    pub draining: bool,
    /// How it sees each link.
    pub links: BTreeMap<String, LinkHealth>,
    /// Ports it listens on.
    pub bound: BTreeSet<u16>,
    /// Ports it could not bind, each with the cause.
    pub failed: BTreeMap<u16, String>,
}

impl GatewayPod {
    /// Whether it should get nothing new.
    pub fn leaves(&self) -> bool {
        self.place.terminating || self.report.as_ref().is_some_and(|r| r.draining)
    }
}

/// All gateway pods.
#[derive(Clone, Debug, Default)]
pub struct GatewayTable {
    pods: BTreeMap<String, GatewayPod>,
}

impl GatewayTable {
    /// The pods are these and no others.
    pub fn place(&mut self, places: BTreeMap<String, Place>) {
        self.pods.retain(|name, _| places.contains_key(name));
        for (name, place) in places {
            self.pods.entry(name).or_default().place = place;
        }
    }

    /// Pod `name` said `event`. Whether anything but its being alive is news.
    pub fn said(&mut self, name: &str, event: Event) -> bool {
        let Some(pod) = self.pods.get_mut(name) else { return false };
        let before = pod.clone();
        pod.heard = true;
        match event {
            Event::Heartbeat {} => {}
            Event::State { draining, links } => {
                let report = pod.report.get_or_insert_default();
                report.draining = draining;
                report.links = links;
            }
            Event::Ports { bound, failed } => {
                let report = pod.report.get_or_insert_default();
                report.bound = bound.into_iter().collect();
                report.failed = failed.into_iter().map(|f| (f.port, f.error)).collect();
            }
        }
        *pod != before
    }

    /// Pod `name` says nothing any more. Whether that is news.
    pub fn silent(&mut self, name: &str) -> bool {
        self.pods.get_mut(name).is_some_and(|pod| std::mem::replace(&mut pod.heard, false))
    }

    /// All pods as they are now.
    pub fn pods(&self) -> &BTreeMap<String, GatewayPod> {
        &self.pods
    }
}
