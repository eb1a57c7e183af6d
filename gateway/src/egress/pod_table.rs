//! Which pod calls, by its address. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

/// What is told of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// Its ServiceAccount.
    pub service_account: String,
    /// All its addresses.
    pub ips: Vec<IpAddr>,
}

/// Pods that have addresses of their own, by namespace and name.
#[derive(Debug, Default)]
pub struct PodTable {
    pods: HashMap<(String, String), PodRow>,
    by_ip: HashMap<IpAddr, HashSet<(String, String)>>,
}

impl PodTable {
    /// A pod is there, or gone.
    pub fn set(&mut self, namespace: &str, name: &str, row: Option<PodRow>) {
        let key = (namespace.to_owned(), name.to_owned());
        for ip in self.pods.remove(&key).into_iter().flat_map(|row| row.ips) {
            if let Some(pods) = self.by_ip.get_mut(&ip) {
                pods.remove(&key);
                if pods.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
        if let Some(row) = row {
            for ip in &row.ips {
                self.by_ip.entry(*ip).or_default().insert(key.clone());
            }
            self.pods.insert(key, row);
        }
    }

    /// These are all.
    pub fn reset(&mut self, pods: impl IntoIterator<Item = ((String, String), PodRow)>) {
        self.pods.clear();
        self.by_ip.clear();
        for ((namespace, name), row) in pods {
            self.set(&namespace, &name, Some(row));
        }
    }

    /// Who calls from `ip`, as W3C baggage with OpenTelemetry's keys; empty when no pod or several have the address:
    /// nodes, and what hides behind them, are never guessed. `cluster` is this cluster's trust domain.
    pub fn baggage(&self, ip: IpAddr, cluster: &str) -> String {
        let mut pods = self.by_ip.get(&ip.to_canonical()).into_iter().flatten();
        let (Some((namespace, pod)), None) = (pods.next(), pods.next()) else { return String::new() };
        let account =
            self.pods.get(&(namespace.clone(), pod.clone())).map(|row| row.service_account.as_str());
        let account = account.unwrap_or_default();
        let members = BTreeMap::from([
            ("k8s.cluster.uid", cluster.strip_suffix(".linkspan").unwrap_or(cluster)),
            ("k8s.namespace.name", namespace.as_str()),
            ("k8s.pod.name", pod.as_str()),
            ("k8s.serviceaccount.name", account),
        ]);
        // Kubernetes names hold no character that baggage would have to escape.
        let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
        members.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ip: [u8; 4]) -> PodRow {
        PodRow { service_account: "web".to_owned(), ips: vec![IpAddr::from(ip)] }
    }

    #[test]
    fn a_pod_is_named_by_its_address() {
        let mut table = PodTable::default();
        table.set("shop", "web-1", Some(row([10, 0, 0, 1])));
        let named =
            "k8s.cluster.uid=u,k8s.namespace.name=shop,k8s.pod.name=web-1,k8s.serviceaccount.name=web";
        assert_eq!(table.baggage([10, 0, 0, 1].into(), "u.linkspan"), named);
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(table.baggage(mapped, "u.linkspan"), named);
        assert_eq!(table.baggage([10, 0, 0, 2].into(), "u.linkspan"), "");
    }

    #[test]
    fn two_pods_with_one_address_are_unknown_until_one_goes() {
        let mut table = PodTable::default();
        table.set("shop", "web-1", Some(row([10, 0, 0, 1])));
        table.set("shop", "web-2", Some(row([10, 0, 0, 1])));
        assert_eq!(table.baggage([10, 0, 0, 1].into(), "u"), "");
        table.set("shop", "web-1", None);
        assert!(table.baggage([10, 0, 0, 1].into(), "u").contains("web-2"));
        table.reset([]);
        assert_eq!(table.baggage([10, 0, 0, 1].into(), "u"), "");
        assert!(table.by_ip.is_empty());
    }
}
