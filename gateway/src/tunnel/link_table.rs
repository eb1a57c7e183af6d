//! What Links say: where their gateways are and who they must prove to be. Pure.

use linkspan_core::api::{
    identity::Identity,
    link::{LinkSettings, ProbeSettings},
};
use std::collections::BTreeMap;

/// One Link, as far as gateways care.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkRow {
    /// Host names or addresses with ports, in the order to be tried.
    pub endpoints: Vec<(String, u16)>,
    /// Who the gateway must prove to be.
    pub identity: Identity,
    /// Probing.
    pub probe: ProbeSettings,
}

/// All Links by name; one that cannot be used says why.
#[derive(Debug, Default)]
pub struct LinkTable {
    rows: BTreeMap<String, Result<LinkRow, String>>,
}

impl LinkRow {
    /// `settings`, unless the target cluster publishes newer addresses (`host:port`).
    pub fn new(settings: LinkSettings, published: &[String]) -> Self {
        let LinkSettings { gateway_hosts, gateway_port, gateway_identity, probe } = settings;
        let published: Vec<_> = published.iter().filter_map(|text| split(text)).collect();
        let endpoints = if published.is_empty() {
            gateway_hosts.into_iter().map(|host| (host, gateway_port)).collect()
        } else {
            published
        };
        Self { endpoints, identity: gateway_identity, probe }
    }
}

/// Reads `host:port`, where an IPv6 address stands in brackets.
fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl LinkTable {
    /// A Link is there, or has changed. Whether this changes anything.
    pub fn set(&mut self, name: &str, row: Result<LinkRow, String>) -> bool {
        let before = self.rows.insert(name.to_owned(), row);
        before.as_ref() != self.rows.get(name)
    }

    /// A Link is gone. Whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.rows.remove(name).is_some()
    }

    /// These are all Links. Whether this changes anything.
    pub fn reset(&mut self, rows: BTreeMap<String, Result<LinkRow, String>>) -> bool {
        let changed = self.rows != rows;
        self.rows = rows;
        changed
    }

    /// All Links by name.
    pub fn rows(&self) -> &BTreeMap<String, Result<LinkRow, String>> {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> LinkSettings {
        LinkSettings {
            gateway_hosts: vec!["10.0.0.1".into(), "gateway.example".into()],
            gateway_port: 4143,
            gateway_identity: "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".parse().unwrap(),
            probe: ProbeSettings::default(),
        }
    }

    #[test]
    fn published_addresses_come_before_the_links_own() {
        let own = LinkRow::new(settings(), &[]).endpoints;
        assert_eq!(own, [("10.0.0.1".to_owned(), 4143), ("gateway.example".to_owned(), 4143)]);
        let published = ["[fd00::1]:30001".to_owned(), "broken".to_owned(), "lb.example:1".to_owned()];
        let followed = LinkRow::new(settings(), &published).endpoints;
        assert_eq!(followed, [("fd00::1".to_owned(), 30001), ("lb.example".to_owned(), 1)]);
    }

    #[test]
    fn only_changes_are_reported() {
        let mut table = LinkTable::default();
        let row = || Ok(LinkRow::new(settings(), &[]));
        assert!(table.set("west", row()));
        assert!(!table.set("west", row()));
        assert!(!table.reset(BTreeMap::from([("west".to_owned(), row())])));
        assert!(table.reset(BTreeMap::new()));
        assert!(!table.remove("west"));
    }
}
