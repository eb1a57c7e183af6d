//! Which of this gateway's ports leads where, by our slices. Pure.

use crate::split::port::SplitAt;
use linkspan_core::api::{names::Target, slice::SliceRoute, split::SplitRoute};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What one slice of ours says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceRow {
    /// When it was made; the older one of two that claim a port wins.
    pub created: String,
    /// Link and targets by port.
    pub route: SliceRoute,
    /// Gateway pods that take traffic by this slice.
    pub ready_pods: BTreeSet<String>,
    /// Which of the ports are declared as HTTP.
    pub http: BTreeSet<u16>,
    /// What happens to the traffic of an apex; its ports are in `route` too, without a link.
    pub split: Option<Arc<SplitRoute>>,
}

/// Where one port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Over which Link.
    pub link: String,
    /// To what.
    pub target: Target,
    /// Whether it is declared to be HTTP.
    pub http: bool,
    /// Of an apex's port, how its traffic is shared out; it is over no Link then.
    pub split: Option<Arc<SplitAt>>,
}

/// All slices of ours, by namespace and name.
#[derive(Debug, Default)]
pub struct PortTable {
    slices: BTreeMap<(String, String), SliceRow>,
}

impl PortTable {
    /// A slice is there, or gone. Whether this changes anything.
    pub fn set(&mut self, namespace: &str, name: &str, row: Option<SliceRow>) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match row {
            Some(row) => {
                let before = self.slices.insert(key.clone(), row);
                before.as_ref() != self.slices.get(&key)
            }
            None => self.slices.remove(&key).is_some(),
        }
    }

    /// These are all. Whether this changes anything.
    pub fn reset(&mut self, slices: BTreeMap<(String, String), SliceRow>) -> bool {
        let changed = self.slices != slices;
        self.slices = slices;
        changed
    }

    /// Where each port leads, and the ports that two slices claim for different targets.
    pub fn routes(&self) -> (BTreeMap<u16, Route>, BTreeMap<u16, String>) {
        let mut by_age: Vec<_> = self.slices.iter().collect();
        by_age.sort_by(|a, b| (&a.1.created, a.0).cmp(&(&b.1.created, b.0)));
        let (mut routes, mut conflicts) = (BTreeMap::new(), BTreeMap::new());
        for ((namespace, name), row) in by_age {
            for (port, target) in &row.route.ports {
                let http = row.http.contains(port);
                let split = row.split.as_ref().map(|route| {
                    let (namespace, route) = (namespace.clone(), route.clone());
                    Arc::new(SplitAt { namespace, route, gateway_port: *port })
                });
                let route = Route { link: row.route.link.clone(), target: target.clone(), http, split };
                let first = routes.entry(*port).or_insert_with(|| route.clone());
                if *first != route {
                    let text = format!(
                        "slice {namespace}/{name} claims this port too, for {target}; the older slice wins"
                    );
                    conflicts.insert(*port, text);
                }
            }
        }
        (routes, conflicts)
    }

    /// Whether the mirror of `target` behind `link` has endpoints, as its slices say; of one without slices nothing bad
    /// is known.
    pub fn is_ready(&self, link: &str, target: &Target) -> bool {
        let leads = |row: &&SliceRow| row.route.link == link && row.route.ports.values().any(|t| t == target);
        let mut ready = self.slices.values().filter(leads).map(|row| !row.ready_pods.is_empty()).peekable();
        ready.peek().is_none() || ready.any(|ready| ready)
    }

    /// Whether any slice still sends traffic to the gateway pod `pod`.
    pub fn lists_ready(&self, pod: &str) -> bool {
        self.slices.values().any(|row| row.ready_pods.contains(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(created: &str, link: &str, ports: &[(u16, &str)], ready: &[&str]) -> SliceRow {
        let ports = ports.iter().map(|(port, target)| (*port, target.parse().unwrap())).collect();
        SliceRow {
            created: created.to_owned(),
            route: SliceRoute { link: link.to_owned(), ports },
            ready_pods: ready.iter().map(|p| (*p).to_owned()).collect(),
            http: BTreeSet::new(),
            split: None,
        }
    }

    #[test]
    fn the_older_of_two_claims_wins_and_the_other_is_told() {
        let mut table = PortTable::default();
        table.set(
            "b",
            "new",
            Some(row("2026-01-02T00:00:00Z", "west", &[(10_000, "b.b:80"), (10_001, "b.b:81")], &[])),
        );
        table.set("a", "old", Some(row("2026-01-01T00:00:00Z", "west", &[(10_000, "a.a:80")], &[])));
        let (routes, conflicts) = table.routes();
        assert_eq!(routes[&10_000].target.to_string(), "a.a:80");
        assert_eq!(routes[&10_001].target.to_string(), "b.b:81");
        assert_eq!(conflicts.keys().collect::<Vec<_>>(), [&10_000]);
    }

    #[test]
    fn slices_of_both_families_agree() {
        let mut table = PortTable::default();
        let same = || row("2026-01-01T00:00:00Z", "west", &[(10_000, "a.a:80")], &["gw-1"]);
        assert!(table.set("a", "v4", Some(same())) && table.set("a", "v6", Some(same())));
        assert!(!table.set("a", "v6", Some(same())));
        assert!(table.routes().1.is_empty());
        assert!(table.lists_ready("gw-1") && !table.lists_ready("gw-2"));
        table.reset(BTreeMap::new());
        assert!(!table.lists_ready("gw-1") && table.routes().0.is_empty());
    }
}
