//! The way of a name, hop by hop: Service, slices, gateway pods, link, Service of the linked cluster. Pure.

use crate::observe::health::why;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use linkspan_core::api::{
    controller_report::LinkReport,
    labels::{MANAGED_BY, SLICE_MANAGED_BY, SPLIT},
    slice::SliceRoute,
};
use serde::Serialize;

/// What the way is told from.
pub(super) struct Seen<'a> {
    /// The Service that is called.
    pub(super) service: &'a Service,
    /// Its slices.
    pub(super) slices: &'a [EndpointSlice],
    /// All links.
    pub(super) links: &'a [LinkReport],
    /// The port that is called; absent: any.
    pub(super) port: Option<u16>,
}

/// Where a name leads.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Way {
    service: String,
    namespace: String,
    cluster_ips: Vec<String>,
    ports: Vec<i32>,
    split: bool,
    slices: Vec<SliceHop>,
    links: Vec<LinkHop>,
    /// Whether a call arrives, as far as it is known here.
    pub(super) verdict: Verdict,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct SliceHop {
    name: String,
    managed_by: String,
    /// The link that its endpoints, gateway pods, lead to.
    link: Option<String>,
    /// `<port of the endpoints> -> <service>.<namespace>:<port>` in the linked cluster.
    leads: Vec<String>,
    endpoints: Vec<EndpointHop>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointHop {
    addresses: Vec<String>,
    pod: Option<String>,
    node: Option<String>,
    ready: bool,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkHop {
    name: String,
    alive: Option<bool>,
    latency_ms: Option<f64>,
    addresses: Vec<String>,
    /// What is wrong with it.
    problem: Option<String>,
}

/// What comes of a call.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// Whether it arrives.
    pub(super) works: bool,
    /// Where it ends, in one sentence.
    text: String,
}

/// The way of a name.
pub(super) fn of(seen: &Seen<'_>) -> Way {
    let spec = seen.service.spec.clone().unwrap_or_default();
    let slices: Vec<SliceHop> = seen.slices.iter().map(|slice| slice_hop(slice, seen.port)).collect();
    let mut names: Vec<&str> = slices.iter().filter_map(|slice| slice.link.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let links: Vec<LinkHop> = names.into_iter().map(|name| link_hop(name, seen.links)).collect();
    let split = spec.selector.as_ref().is_some_and(|selector| selector.contains_key(SPLIT));
    Way {
        service: seen.service.name_any(),
        namespace: seen.service.namespace().unwrap_or_default(),
        cluster_ips: spec.cluster_ips.unwrap_or_default(),
        ports: spec.ports.unwrap_or_default().iter().map(|port| port.port).collect(),
        split,
        verdict: verdict(&slices, &links),
        slices,
        links,
    }
}

fn slice_hop(slice: &EndpointSlice, port: Option<u16>) -> SliceHop {
    let route = slice.metadata.annotations.as_ref().and_then(|all| SliceRoute::from_annotations(all).ok());
    let managed_by = slice.labels().get(SLICE_MANAGED_BY).cloned().unwrap_or_default();
    let route = route.filter(|_| managed_by == MANAGED_BY);
    let leads = route.iter().flat_map(|route| &route.ports);
    let leads = leads.filter(|(_, target)| port.is_none_or(|port| target.port == port));
    let endpoint = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| EndpointHop {
        addresses: endpoint.addresses.clone(),
        pod: endpoint.target_ref.as_ref().and_then(|target| target.name.clone()),
        node: endpoint.node_name.clone(),
        ready: endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false)),
    };
    SliceHop {
        name: slice.name_any(),
        leads: leads.map(|(ours, target)| format!("{ours} -> {target}")).collect(),
        link: route.as_ref().map(|route| route.link.clone()),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
        managed_by,
    }
}

fn link_hop(name: &str, links: &[LinkReport]) -> LinkHop {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let problem = Some("there is no such Link, or it cannot be read".to_owned());
        return LinkHop { name: name.to_owned(), alive: None, latency_ms: None, addresses: vec![], problem };
    };
    LinkHop {
        name: name.to_owned(),
        alive: link.alive,
        latency_ms: link.latency_ms.filter(|_| link.alive == Some(true)),
        addresses: link.addresses.clone(),
        problem: (link.alive != Some(true)).then(|| why(link)),
    }
}

fn verdict(slices: &[SliceHop], links: &[LinkHop]) -> Verdict {
    let ends = |text: String| Verdict { works: false, text };
    if slices.is_empty() {
        return ends("it ends at the Service: no slice says where its endpoints are".to_owned());
    }
    if slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.ready) {
        return Verdict { works: true, text: "a call arrives".to_owned() };
    }
    let gateways = slices.iter().filter(|slice| slice.link.is_some());
    if gateways.clone().next().is_none() {
        return ends("it ends at the Service: none of its pods is ready".to_owned());
    }
    if gateways.clone().all(|slice| slice.endpoints.is_empty()) {
        return ends(
            "it ends at the gateways: this cluster has none that runs; see Deployment linkspan-gateway"
                .to_owned(),
        );
    }
    if let Some(link) = links.iter().find(|link| link.problem.is_some()) {
        let problem = link.problem.as_deref().unwrap_or_default();
        return ends(format!("it ends at link {}: {problem}", link.name));
    }
    ends(
        "it ends behind the link: the Service has no ready endpoint in the linked cluster, or no gateway has bound its port yet"
            .to_owned(),
    )
}

impl Way {
    /// The way in words.
    pub(super) fn text(&self) -> String {
        let list = |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let ips = if self.cluster_ips.is_empty() { "none".to_owned() } else { self.cluster_ips.join(", ") };
        let mut text = format!(
            "{}.{}\n  Service: address {ips}, ports {}\n",
            self.service,
            self.namespace,
            list(&self.ports)
        );
        if self.split {
            text.push_str("  a TrafficSplit has taken it over: gateways divide its traffic\n");
        }
        for slice in &self.slices {
            text.push_str(&format!("-> EndpointSlice {} of {}\n", slice.name, slice.managed_by));
            for lead in &slice.leads {
                text.push_str(&format!("   port {lead}\n"));
            }
            for endpoint in &slice.endpoints {
                let kind = if slice.link.is_some() { "gateway pod" } else { "pod" };
                let on = endpoint.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
                text.push_str(&format!(
                    "   {kind} {} at {}{on}: {}\n",
                    endpoint.pod.as_deref().unwrap_or("-"),
                    endpoint.addresses.join(", "),
                    if endpoint.ready { "ready" } else { "not ready" }
                ));
            }
        }
        for link in &self.links {
            let latency = link.latency_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
            let state = match (&link.problem, link.alive) {
                (None, _) => format!("alive{latency}"),
                (Some(problem), Some(false)) => format!("dead: {problem}"),
                (Some(problem), _) => problem.clone(),
            };
            text.push_str(&format!("-> link {} by {}: {state}\n", link.name, link.addresses.join(", ")));
        }
        text.push_str(&format!("=> {}\n", self.verdict.text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkspan_core::api::reason::Reason;
    use serde_json::{from_value, json};

    fn told(endpoints: &serde_json::Value, link: LinkReport) -> Way {
        let service = from_value(json!({
            "metadata": {"name": "my-api-west", "namespace": "shop"},
            "spec": {"clusterIPs": ["10.96.0.7"], "ports": [{"port": 8080}]},
        }))
        .unwrap();
        let slice = from_value(json!({
            "metadata": {"name": "my-api-west-x", "labels": {SLICE_MANAGED_BY: MANAGED_BY},
                "annotations": {"linkspan.dev/link": "west", "linkspan.dev/target": "my-api.shop", "linkspan.dev/ports": "10007=8080"}},
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap();
        of(&Seen { service: &service, slices: &[slice], links: &[link], port: None })
    }

    fn link(alive: bool) -> LinkReport {
        LinkReport {
            name: "west".into(),
            alive: Some(alive),
            reason: (!alive).then_some(Reason::Refused),
            latency_ms: Some(2.0),
            addresses: vec!["172.18.0.9:4143".into()],
            ..LinkReport::default()
        }
    }

    #[test]
    fn every_hop_is_told() {
        let ready = json!([{"addresses": ["10.244.1.5"], "nodeName": "n1", "targetRef": {"name": "gw-1"}, "conditions": {"ready": true}}]);
        assert_eq!(
            told(&ready, link(true)).text(),
            "my-api-west.shop\n  Service: address 10.96.0.7, ports 8080\n\
             -> EndpointSlice my-api-west-x of linkspan.dev\n   port 10007 -> my-api.shop:8080\n   \
             gateway pod gw-1 at 10.244.1.5 on n1: ready\n\
             -> link west by 172.18.0.9:4143: alive, 2.0 ms\n=> a call arrives\n"
        );
    }

    #[test]
    fn where_it_ends_is_told() {
        let dead = json!([{"addresses": ["10.244.1.5"], "conditions": {"ready": false}}]);
        let ends = |endpoints, link| {
            let way = told(&endpoints, link);
            assert!(!way.verdict.works);
            way.verdict.text
        };
        assert!(ends(dead.clone(), link(false)).starts_with("it ends at link west: refused: "));
        assert!(ends(dead, link(true)).contains("behind the link"));
        assert!(ends(json!([]), link(true)).contains("at the gateways"));
    }
}
