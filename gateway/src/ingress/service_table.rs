//! What this cluster exports, and where its endpoints are. Pure.

use crate::ingress::choose::Candidate;
use linkspan_core::api::names::Target;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

/// An exported Service: a row exists only while it is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRow {
    /// Exported TCP ports.
    pub ports: Vec<ServicePort>,
    /// Whether it has no cluster IP.
    pub headless: bool,
    /// Whether endpoints take traffic before they are ready.
    pub publish_not_ready: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when the Service has one port only.
    pub name: String,
    /// Its number.
    pub port: u16,
}

/// What one EndpointSlice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceRow {
    /// The Service it belongs to.
    pub service: String,
    /// TCP ports by name.
    pub ports: Vec<(String, u16)>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The zone each pod is in, by its name; read from the slices of the gateways themselves only.
    pub zones: BTreeMap<String, String>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Host name, for pods of a headless Service.
    pub hostname: Option<String>,
    /// Takes traffic.
    pub ready: bool,
    /// Would take traffic though it is ending.
    pub serving_while_terminating: bool,
    /// Zones whose callers it is meant for; empty where slices give no hints.
    pub for_zones: Vec<String>,
}

/// Exported Services and all slices of this cluster that are not ours.
#[derive(Debug, Default)]
pub struct ServiceTable {
    services: BTreeMap<(String, String), ServiceRow>,
    /// The namespaces that may export; `None`: all may.
    gate: Option<BTreeSet<String>>,
    slices: HashMap<(String, String), SliceRow>,
    by_service: HashMap<(String, String), BTreeSet<String>>,
}

impl ServiceTable {
    /// A Service is exported as `row` says, or not (any more). Whether this changes anything.
    pub fn set_service(&mut self, namespace: &str, name: &str, row: Option<ServiceRow>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match row {
            Some(row) => {
                let before = self.services.insert(key.clone(), row);
                before.as_ref() != self.services.get(&key)
            }
            None => self.services.remove(&key).is_some(),
        }
    }

    /// These are all exported Services. Whether this changes anything.
    pub fn reset_services(&mut self, services: BTreeMap<(String, String), ServiceRow>) -> bool {
        let changed = self.services != services;
        self.services = services;
        changed
    }

    /// Namespace `name` may export from now on, or may not. Whether this changes anything.
    pub fn set_gate(&mut self, name: &str, open: bool) -> bool {
        let gate = self.gate.get_or_insert_default();
        if open { gate.insert(name.to_owned()) } else { gate.remove(name) }
    }

    /// Only these namespaces may export. Whether this changes anything.
    pub fn reset_gate(&mut self, open: BTreeSet<String>) -> bool {
        self.gate.replace(open) != self.gate
    }

    /// A slice is there, or gone.
    pub fn set_slice(&mut self, namespace: &str, name: &str, row: Option<SliceRow>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(before) = self.slices.remove(&key) {
            let service = (namespace.to_owned(), before.service);
            if let Some(names) = self.by_service.get_mut(&service) {
                names.remove(name);
                if names.is_empty() {
                    self.by_service.remove(&service);
                }
            }
        }
        if let Some(row) = row {
            let service = (namespace.to_owned(), row.service.clone());
            self.by_service.entry(service).or_default().insert(name.to_owned());
            self.slices.insert(key, row);
        }
    }

    /// These are all slices.
    pub fn reset_slices(&mut self, slices: impl IntoIterator<Item = ((String, String), SliceRow)>) {
        self.slices.clear();
        self.by_service.clear();
        for ((namespace, name), row) in slices {
            self.set_slice(&namespace, &name, Some(row));
        }
    }

    /// Exported Services by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = (&(String, String), &ServiceRow)> {
        self.services.iter()
    }

    /// Whether `target` names an exported port of an exported Service, or one of its pods' ports behind it.
    pub fn is_exported(&self, target: &Target) -> bool {
        let Some((row, ports)) = self.exported_ports(target) else { return false };
        let pod_exists = |host: &String| {
            row.headless
                && self.slices_of(&target.namespace, &target.service).any(|slice| {
                    slice.endpoints.iter().any(|endpoint| endpoint.hostname.as_ref() == Some(host))
                })
        };
        !ports.is_empty() && target.host.as_ref().is_none_or(pod_exists)
    }

    /// Endpoints that take traffic for `target`, which is exported; none of them in `never`. Those that are meant for
    /// the zone `zone` are near.
    pub fn endpoints(&self, target: &Target, never: &BTreeSet<IpAddr>, zone: Option<&str>) -> Vec<Candidate> {
        let Some((row, names)) = self.exported_ports(target) else { return Vec::new() };
        let mut ready = Vec::new();
        let mut last_resort = Vec::new();
        for slice in self.slices_of(&target.namespace, &target.service) {
            for (_, port) in slice.ports.iter().filter(|(name, _)| names.contains(&name.as_str())) {
                for endpoint in &slice.endpoints {
                    let asked_for = target.host.is_none() || target.host == endpoint.hostname;
                    if !asked_for || never.contains(&endpoint.ip) {
                        continue;
                    }
                    let near = zone.is_some_and(|zone| endpoint.for_zones.iter().any(|z| z == zone));
                    let candidate = Candidate { address: SocketAddr::new(endpoint.ip, *port), near };
                    if endpoint.ready || row.publish_not_ready {
                        ready.push(candidate);
                    } else if endpoint.serving_while_terminating {
                        last_resort.push(candidate);
                    }
                }
            }
        }
        // When all terminate, those that still serve are used, as kube-proxy does.
        let mut found = if ready.is_empty() { last_resort } else { ready };
        found.sort_unstable();
        found.dedup_by_key(|candidate| candidate.address);
        found
    }

    /// The zone that the pod `pod` of a Service is in, where its slices say so.
    pub fn zone_of(&self, namespace: &str, service: &str, pod: &str) -> Option<&str> {
        self.slices_of(namespace, service).find_map(|slice| slice.zones.get(pod)).map(String::as_str)
    }

    /// Addresses that take traffic for the port named `port` of a Service of this cluster, exported or not; none of
    /// them in `never`.
    pub fn local_endpoints(
        &self,
        namespace: &str,
        service: &str,
        port: &str,
        never: &BTreeSet<IpAddr>,
    ) -> Vec<SocketAddr> {
        let (mut ready, mut last_resort) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices_of(namespace, service) {
            for (_, number) in slice.ports.iter().filter(|(name, _)| name == port) {
                for endpoint in slice.endpoints.iter().filter(|e| !never.contains(&e.ip)) {
                    let address = SocketAddr::new(endpoint.ip, *number);
                    if endpoint.ready {
                        ready.insert(address);
                    } else if endpoint.serving_while_terminating {
                        last_resort.insert(address);
                    }
                }
            }
        }
        if ready.is_empty() { last_resort } else { ready }.into_iter().collect()
    }

    /// Addresses of all endpoints of a Service, exported or not.
    pub fn addresses_of(&self, namespace: &str, service: &str) -> BTreeSet<IpAddr> {
        self.slices_of(namespace, service).flat_map(|slice| slice.endpoints.iter().map(|e| e.ip)).collect()
    }

    /// The exported Service of `target`, and the names of its ports that `target.port` stands for: the Service's
    /// number, or for headless Services, whose clients dial the pods, the pods' number.
    fn exported_ports(&self, target: &Target) -> Option<(&ServiceRow, Vec<&str>)> {
        if self.gate.as_ref().is_some_and(|open| !open.contains(&target.namespace)) {
            return None;
        }
        let row = self.services.get(&(target.namespace.clone(), target.service.clone()))?;
        let by_service: Vec<&str> =
            row.ports.iter().filter(|p| p.port == target.port).map(|p| p.name.as_str()).collect();
        if !by_service.is_empty() || !row.headless {
            return Some((row, by_service));
        }
        let exported = |name: &str| row.ports.iter().any(|p| p.name == name);
        let by_pod: BTreeSet<&str> = self
            .slices_of(&target.namespace, &target.service)
            .flat_map(|slice| &slice.ports)
            .filter(|(name, port)| *port == target.port && exported(name))
            .map(|(name, _)| name.as_str())
            .collect();
        Some((row, by_pod.into_iter().collect()))
    }

    fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &SliceRow> {
        let names = self.by_service.get(&(namespace.to_owned(), service.to_owned()));
        let namespace = namespace.to_owned();
        names
            .into_iter()
            .flatten()
            .filter_map(move |name| self.slices.get(&(namespace.clone(), name.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: [u8; 4], ready: bool, serving_while_terminating: bool) -> Endpoint {
        let (ip, hostname, for_zones) = (IpAddr::from(ip), None, Vec::new());
        Endpoint { ip, hostname, ready, serving_while_terminating, for_zones }
    }

    fn table(row: ServiceRow, endpoints: Vec<Endpoint>) -> ServiceTable {
        let mut table = ServiceTable::default();
        table.set_service("default", "web", Some(row));
        let ports = vec![("http".to_owned(), 80), ("admin".to_owned(), 9000)];
        let slice = SliceRow { service: "web".to_owned(), ports, endpoints, ..SliceRow::default() };
        table.set_slice("default", "web-1", Some(slice));
        table
    }

    fn row() -> ServiceRow {
        let http = ServicePort { name: "http".to_owned(), port: 8080 };
        ServiceRow { ports: vec![http], ..ServiceRow::default() }
    }

    fn found(table: &ServiceTable, target: &str) -> Vec<String> {
        let target = target.parse().unwrap();
        let found = table.endpoints(&target, &BTreeSet::new(), None);
        found.iter().map(|candidate| candidate.address.to_string()).collect()
    }

    #[test]
    fn only_what_is_in_a_namespace_that_the_gate_names_is_exported() {
        let mut table = table(row(), vec![endpoint([10, 0, 0, 1], true, false)]);
        let target = "web.default:8080".parse().unwrap();
        assert!(table.is_exported(&target));
        assert!(table.reset_gate(BTreeSet::from(["other".to_owned()])));
        assert!(!table.is_exported(&target) && found(&table, "web.default:8080").is_empty());
        assert!(table.set_gate("default", true) && table.is_exported(&target));
        assert!(table.set_gate("default", false) && !table.is_exported(&target));
        assert!(!table.set_gate("default", false), "no news");
    }

    #[test]
    fn ready_endpoints_of_the_exported_port_are_found() {
        let endpoints = vec![endpoint([10, 0, 0, 1], true, false), endpoint([10, 0, 0, 2], false, true)];
        let table = table(row(), endpoints);
        assert_eq!(found(&table, "web.default:8080"), ["10.0.0.1:80"]);
        assert_eq!(found(&table, "web.default:9000"), [""; 0], "not exported");
        let never = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
        let target: Target = "web.default:8080".parse().unwrap();
        let found = table.endpoints(&target, &never, None);
        assert_eq!(found, [Candidate { address: "10.0.0.2:80".parse().unwrap(), near: false }]);
    }

    #[test]
    fn terminating_ones_serve_when_all_terminate_and_unready_ones_when_published() {
        let endpoints = || vec![endpoint([10, 0, 0, 1], false, false), endpoint([10, 0, 0, 2], false, true)];
        assert_eq!(found(&table(row(), endpoints()), "web.default:8080"), ["10.0.0.2:80"]);
        let published = ServiceRow { publish_not_ready: true, ..row() };
        assert_eq!(found(&table(published, endpoints()), "web.default:8080"), ["10.0.0.1:80", "10.0.0.2:80"]);
    }

    #[test]
    fn pods_of_a_headless_service_are_reached_by_host_name_and_either_port() {
        let mut one = endpoint([10, 0, 0, 1], true, false);
        one.hostname = Some("web-0".to_owned());
        let table =
            table(ServiceRow { headless: true, ..row() }, vec![one, endpoint([10, 0, 0, 2], true, false)]);
        for port in [8080, 80] {
            assert_eq!(found(&table, &format!("web-0.web.default:{port}")), ["10.0.0.1:80"]);
            assert!(table.is_exported(&format!("web-0.web.default:{port}").parse().unwrap()));
        }
        assert!(!table.is_exported(&"web-1.web.default:8080".parse().unwrap()));
        assert!(!table.is_exported(&"web-0.web.default:9000".parse().unwrap()), "its name is not exported");
    }

    #[test]
    fn endpoints_are_near_when_they_are_meant_for_the_zone_of_this_gateway() {
        let mut near = endpoint([10, 0, 0, 1], true, false);
        near.for_zones = vec!["a".to_owned(), "b".to_owned()];
        let mut table = table(row(), vec![near, endpoint([10, 0, 0, 2], true, false)]);
        let target: Target = "web.default:8080".parse().unwrap();
        let near = |table: &ServiceTable, zone: Option<&str>| -> Vec<bool> {
            table.endpoints(&target, &BTreeSet::new(), zone).iter().map(|candidate| candidate.near).collect()
        };
        assert_eq!(near(&table, Some("b")), [true, false]);
        assert_eq!(near(&table, Some("c")), [false, false]);
        assert_eq!(near(&table, None), [false, false]);
        let zones = BTreeMap::from([("gateway-1".to_owned(), "b".to_owned())]);
        let slice = SliceRow { service: "gateway".to_owned(), zones, ..SliceRow::default() };
        table.set_slice("linkspan", "gateway-1", Some(slice));
        assert_eq!(table.zone_of("linkspan", "gateway", "gateway-1"), Some("b"));
        assert_eq!(table.zone_of("linkspan", "gateway", "gateway-2"), None);
    }

    #[test]
    fn what_goes_is_forgotten() {
        let mut table = table(row(), vec![endpoint([10, 0, 0, 1], true, false)]);
        assert!(!table.set_service("default", "web", Some(row())), "nothing changed");
        table.set_slice("default", "web-1", None);
        assert_eq!(found(&table, "web.default:8080"), [""; 0]);
        assert!(table.by_service.is_empty());
        assert!(table.set_service("default", "web", None));
        assert!(!table.is_exported(&"web.default:8080".parse().unwrap()));
    }
}
