//! Which splits hold, what each wants of its apex, and why others do not. Pure.

use crate::{
    snapshot::Key,
    split::table::{MirrorPorts, SplitTable, user_selector},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use linkspan_core::api::{
    labels::OPAQUE_PORTS,
    route_group::RouteMatch,
    split::{Place, Protocol, Remote, SplitBackend, protocol, shadow_name},
    traffic_split::{Backend, TrafficSplit},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a split that holds wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The split.
    pub split: Key,
    /// The apex's ports, each with its backends.
    pub ports: Vec<WantedPort>,
    /// Whether clients keep to one backend.
    pub affinity: bool,
}

/// One port of an apex.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPort {
    /// Its name; empty for an only port.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its application protocol as declared.
    pub app_protocol: Option<String>,
    /// Who serves it.
    pub backends: Vec<SplitBackend>,
    /// What selects the requests that are shared out.
    pub matches: Vec<RouteMatch>,
}

/// Why something is not done: one CamelCase word, one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Why {
    /// `reason`, told as `message`.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What became of one split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why it does not hold.
    pub refused: Option<Why>,
    /// What is left out of it.
    pub left_out: Vec<Why>,
}

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    /// What each apex should be.
    pub wanted: BTreeMap<Key, Wanted>,
    /// What became of each split.
    pub verdicts: BTreeMap<Key, Verdict>,
}

/// What must be asked elsewhere.
pub trait Elsewhere {
    /// Where the ports of a mirror lead.
    fn mirror(&self, key: &Key) -> Option<MirrorPorts>;
    /// A network policy that keeps the gateways from the apex's pods.
    fn barred(&self, apex: &Key) -> Option<Why>;
}

/// Decides about all splits.
pub fn decide(table: &SplitTable, elsewhere: &impl Elsewhere) -> Decided {
    let mut decided = Decided::default();
    let mut by_apex: BTreeMap<Key, Vec<(&Key, &TrafficSplit)>> = BTreeMap::new();
    for (key, split) in &table.splits.items {
        if split.metadata.deletion_timestamp.is_none() {
            let apex = Key::new(&key.namespace, &split.spec.service);
            by_apex.entry(apex).or_default().push((key, split));
        }
    }
    let apexes: BTreeSet<Key> = by_apex.keys().cloned().collect();
    for (apex, mut splits) in by_apex {
        splits.sort_by_key(|(key, split)| (split.metadata.creation_timestamp.as_ref().map(|t| t.0), *key));
        let first = splits[0].0.clone();
        for (key, split) in splits {
            let mut verdict = Verdict::default();
            let wanted = if *key == first {
                want(table, elsewhere, &apexes, &apex, key, split, &mut verdict.left_out)
            } else {
                let message = format!(
                    "TrafficSplit {} splits Service {} already and is older: delete one of the two",
                    first.name, apex.name
                );
                Err(Why::new("ApexTaken", message))
            };
            match wanted {
                Ok(wanted) => {
                    decided.wanted.insert(apex.clone(), wanted);
                }
                Err(why) => verdict.refused = Some(why),
            }
            decided.verdicts.insert(key.clone(), verdict);
        }
    }
    decided
}

fn want(
    table: &SplitTable,
    elsewhere: &impl Elsewhere,
    apexes: &BTreeSet<Key>,
    apex: &Key,
    key: &Key,
    split: &TrafficSplit,
    left_out: &mut Vec<Why>,
) -> Result<Wanted, Why> {
    let Some(service) = table.services.known.items.get(apex) else {
        let what = match elsewhere.mirror(apex) {
            Some(_) => Why::new(
                "ApexIsMirror",
                format!("Service {} is a mirror: split a Service of this cluster", apex.name),
            ),
            None => Why::new(
                "ApexMissing",
                format!("Service {} does not exist: create it, or correct spec.service", apex.name),
            ),
        };
        return Err(what);
    };
    let spec = service.spec.clone().unwrap_or_default();
    unsuitable(service, &spec, apex).map_or(Ok(()), Err)?;
    let shadow = Key::new(&apex.namespace, shadow_name(&apex.name));
    if table.services.known.items.contains_key(&shadow) && table.shadow(apex).is_none() {
        let message = format!("Service {} is in the way and is not ours: rename or delete it", shadow.name);
        return Err(Why::new("NameTaken", message));
    }
    let matches = matches(table, key, split)?;
    let backends = weighed(&split.spec.backends)?;
    let mut used = BTreeSet::new();
    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let mut found = Vec::new();
        for (name, weight) in &backends {
            match place(table, elsewhere, apexes, apex, name, port, number) {
                Ok(place) => {
                    used.insert(name.clone());
                    found.push(SplitBackend { service: name.clone(), weight: *weight, place });
                }
                Err(why) if !left_out.contains(&why) => left_out.push(why),
                Err(_) => {}
            }
        }
        let name = port.name.clone().unwrap_or_default();
        if found.is_empty() {
            let message = format!("no backend has port {number}: it stays with the pods of {}", apex.name);
            left_out.push(Why::new("PortWithoutBackend", message));
            let place = Place::Local(name.clone());
            found.push(SplitBackend { service: apex.name.clone(), weight: 1000, place });
        }
        ports.push(WantedPort {
            protocol: spoken(service, port, number),
            app_protocol: port.app_protocol.clone(),
            port: number,
            backends: found,
            matches: matches.clone(),
            name,
        });
    }
    if used.is_empty() {
        let all: Vec<&str> = left_out.iter().map(|why| why.message.as_str()).collect();
        return Err(Why::new("NoBackends", format!("no backend can be used: {}", all.join("; "))));
    }
    elsewhere.barred(apex).map_or(Ok(()), Err)?;
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    Ok(Wanted { split: key.clone(), ports, affinity })
}

/// Why the apex cannot be taken over.
fn unsuitable(service: &Service, spec: &ServiceSpec, apex: &Key) -> Option<Why> {
    let name = &apex.name;
    let why = |reason, what: &str| Some(Why::new(reason, format!("Service {name} {what}")));
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    if service.metadata.deletion_timestamp.is_some() {
        return why("ApexMissing", "is being deleted");
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        return why("ApexExternalName", "is an ExternalName: it has no endpoints that could be split");
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return why("ApexHeadless", "is headless: its clients call pods, not the Service");
    }
    if user_selector(service).is_empty() {
        return why("ApexWithoutSelector", "has no selector: its endpoints are not Kubernetes' to move");
    }
    if local(&spec.internal_traffic_policy) || local(&spec.external_traffic_policy) {
        return why(
            "ApexLocalPolicy",
            "has traffic policy Local: gateways are not on every node; use Cluster",
        );
    }
    let annotations = service.metadata.annotations.clone().unwrap_or_default();
    let pod_targets = [
        ("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type", "ip"),
        ("cloud.google.com/neg", ""),
        ("networking.gke.io/load-balancer-type", "Internal-Pod"),
    ];
    if let Some((key, _)) = pod_targets
        .iter()
        .find(|(key, value)| annotations.get(*key).is_some_and(|v| value.is_empty() || v == value))
    {
        return why(
            "ApexPodTargets",
            &format!("has a load balancer that dials pods itself (annotation {key})"),
        );
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.iter().any(|p| p.protocol.as_deref().unwrap_or("TCP") != "TCP") {
        return why("ApexPortNotTcp", "has a port that is not TCP: only TCP goes through gateways");
    }
    None
}

/// Names and weights; a name that is there twice has the sum.
fn weighed(backends: &[Backend]) -> Result<Vec<(String, u64)>, Why> {
    let mut weighed: Vec<(String, u64)> = Vec::new();
    for backend in backends {
        let weight = backend
            .weight
            .thousandths()
            .map_err(|e| Why::new("InvalidWeight", format!("backend {}: {e}", backend.service)))?;
        match weighed.iter_mut().find(|(name, _)| *name == backend.service) {
            Some((_, sum)) => *sum += weight,
            None => weighed.push((backend.service.clone(), weight)),
        }
    }
    if weighed.is_empty() {
        return Err(Why::new("NoBackends", "spec.backends is empty: name at least one"));
    }
    Ok(weighed)
}

fn matches(table: &SplitTable, key: &Key, split: &TrafficSplit) -> Result<Vec<RouteMatch>, Why> {
    let mut all = Vec::new();
    for one in &split.spec.matches {
        let group = Key::new(&key.namespace, &one.name);
        let found = table.groups.items.get(&group).filter(|_| one.kind == "HTTPRouteGroup");
        let Some(found) = found else {
            let message =
                format!("{} {} does not exist: create it, or correct spec.matches", one.kind, one.name);
            return Err(Why::new("RouteGroupMissing", message));
        };
        for route in &found.spec.matches {
            if let Err(error) = route.compile() {
                let message = format!("HTTPRouteGroup {}: {error}", one.name);
                return Err(Why::new("InvalidMatch", message));
            }
            all.push(route.clone());
        }
    }
    if all.is_empty() && !split.spec.matches.is_empty() {
        return Err(Why::new("InvalidMatch", "the HTTPRouteGroups of spec.matches select nothing"));
    }
    Ok(all)
}

/// Where backend `name` serves the apex's port.
fn place(
    table: &SplitTable,
    elsewhere: &impl Elsewhere,
    apexes: &BTreeSet<Key>,
    apex: &Key,
    name: &str,
    port: &ServicePort,
    number: u16,
) -> Result<Place, Why> {
    let key = Key::new(&apex.namespace, name);
    let without = || {
        Why::new(
            "BackendWithoutPort",
            format!("backend {name} has no port {number}: it gets none of that port's traffic"),
        )
    };
    if key == *apex {
        return Ok(Place::Local(port.name.clone().unwrap_or_default()));
    }
    if let Some(mirror) = elsewhere.mirror(&key) {
        let target = mirror.ports.get(&number).cloned().ok_or_else(without)?;
        return Ok(Place::Link(Remote { link: mirror.link, target }));
    }
    let Some(service) = table.services.known.items.get(&key) else {
        let message = format!("backend {name} does not exist: its share goes to the others until it does");
        return Err(Why::new("BackendUnknown", message));
    };
    if apexes.contains(&key) {
        let message = format!("backend {name} is split itself: a split of a split is not followed");
        return Err(Why::new("BackendIsSplit", message));
    }
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(Why::new(
            "BackendUnusable",
            format!("backend {name} is an ExternalName: it has no endpoints"),
        ));
    }
    let tcp = |p: &&ServicePort| p.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let found = spec.ports.iter().flatten().filter(tcp).find(|p| p.port == i32::from(number));
    found.map(|p| Place::Local(p.name.clone().unwrap_or_default())).ok_or_else(without)
}

fn spoken(service: &Service, port: &ServicePort, number: u16) -> Protocol {
    let opaque = service.metadata.annotations.as_ref().and_then(|a| a.get(OPAQUE_PORTS));
    let mut numbers = vec![number];
    if let Some(IntOrString::Int(target)) = port.target_port {
        numbers.extend(u16::try_from(target));
    }
    let name = port.name.as_deref().unwrap_or_default();
    protocol(port.app_protocol.as_deref(), name, &numbers, opaque.map(String::as_str))
}
