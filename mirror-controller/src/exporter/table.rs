//! Exported Services, their slices, and what is published: what is known, and what must be written. Pure.
//!
//! Slices of Services that are not exported are not kept. So when a Service becomes exported its slices are listed
//! once; until then nothing is written for it.

use crate::{
    diff::{Change, Seen, diff_export},
    exporter::desired::{export_of, is_exported},
    snapshot::{Key, Listed, service_of},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::{exported_service::ExportedService, names};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that decides what is published.
#[derive(Debug, Default)]
pub struct ExportTable {
    namespace: String,
    services: Listed<Key, Service>,
    slices: BTreeMap<Key, Listed<String, EndpointSlice>>,
    slices_synced: bool,
    published: Listed<String, ExportedService>,
    /// Grows with each event about a Service's slices.
    events: BTreeMap<Key, u64>,
    unlisted: BTreeSet<Key>,
    dirty: BTreeSet<String>,
}

impl ExportTable {
    /// Publishes in `namespace`.
    pub fn new(namespace: String) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// All Services with the export label.
    pub fn services_reset(&mut self, services: Vec<Service>) {
        let exported = services.into_iter().filter(is_exported).map(|s| (Key::of(&s), s));
        for (key, _) in self.services.reset(exported) {
            self.touch(&key);
        }
        self.mark_all();
    }

    /// A Service with the export label was made or changed.
    pub fn service_seen(&mut self, service: Service) {
        let key = Key::of(&service);
        if !is_exported(&service) {
            self.service_gone(&service);
        } else if self.services.seen(key.clone(), service).is_some() {
            self.touch(&key);
        }
    }

    /// A Service was deleted, or is exported no longer.
    pub fn service_gone(&mut self, service: &Service) {
        let key = Key::of(service);
        if self.services.gone(&key, service).is_some() {
            self.touch(&key);
        }
    }

    fn touch(&mut self, key: &Key) {
        self.dirty.insert(export_name(key));
        if !self.services.items.contains_key(key) {
            self.slices.remove(key);
            self.unlisted.remove(key);
            self.events.remove(key);
        } else if !self.slices.contains_key(key) {
            self.unlisted.insert(key.clone());
        }
    }

    /// Whether the Services were listed.
    pub fn services_synced(&self) -> bool {
        self.services.synced
    }

    /// All slices there are that others than we keep.
    pub fn slices_reset(&mut self, slices: Vec<EndpointSlice>) {
        let mut by_service: BTreeMap<Key, Vec<EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            if let Some(service) = service_of(&slice).filter(|key| self.services.items.contains_key(key)) {
                by_service.entry(service).or_default().push(slice);
            }
        }
        self.slices_synced = true;
        let exported: Vec<Key> = self.services.items.keys().cloned().collect();
        for service in exported {
            let slices = by_service.remove(&service).unwrap_or_default();
            *self.events.entry(service.clone()).or_default() += 1;
            self.take_in(&service, slices);
        }
    }

    /// A slice that others keep was made or changed.
    pub fn slice_seen(&mut self, slice: EndpointSlice) {
        if let Some(service) = self.exported_service_of(&slice) {
            let slices = self.slices.entry(service.clone()).or_default();
            if slices.seen(Key::of(&slice).name, slice).is_some() {
                self.dirty.insert(export_name(&service));
            }
        }
    }

    /// A slice that others keep was deleted.
    pub fn slice_gone(&mut self, slice: &EndpointSlice) {
        if let Some(service) = self.exported_service_of(slice)
            && let Some(slices) = self.slices.get_mut(&service)
            && slices.gone(&Key::of(slice).name, slice).is_some()
        {
            self.dirty.insert(export_name(&service));
        }
    }

    fn exported_service_of(&mut self, slice: &EndpointSlice) -> Option<Key> {
        let service = service_of(slice).filter(|key| self.services.items.contains_key(key))?;
        *self.events.entry(service.clone()).or_default() += 1;
        Some(service)
    }

    /// Services whose slices must be listed, each with what [`ExportTable::listed`] needs. None before the first list
    /// of all slices, which brings those of all Services exported by then.
    pub fn unlisted(&self) -> Vec<(Key, u64)> {
        let unlisted = self.unlisted.iter().filter(|_| self.slices_synced);
        unlisted.map(|key| (key.clone(), self.events.get(key).copied().unwrap_or_default())).collect()
    }

    /// The slices of `service` were listed. Whether that can be used: not when a slice changed meanwhile.
    pub fn listed(&mut self, service: &Key, events: u64, slices: Vec<EndpointSlice>) -> bool {
        let usable = self.events.get(service).copied().unwrap_or_default() == events;
        if usable && self.services.items.contains_key(service) {
            self.take_in(service, slices);
        }
        usable
    }

    fn take_in(&mut self, service: &Key, slices: Vec<EndpointSlice>) {
        let slices = slices.into_iter().map(|slice| (Key::of(&slice).name, slice));
        let known = self.slices.entry(service.clone()).or_default();
        let first = !known.synced;
        if !known.reset(slices).is_empty() || first {
            self.dirty.insert(export_name(service));
        }
        self.unlisted.remove(service);
    }

    /// All that is published.
    pub fn published_reset(&mut self, published: Vec<ExportedService>) {
        let named = published.into_iter().map(|e| (Key::of(&e).name, e));
        for (name, _) in self.published.reset(named) {
            self.dirty.insert(name);
        }
        self.mark_all();
    }

    /// Something published was made or changed, by whomever.
    pub fn published_seen(&mut self, export: ExportedService) {
        let name = Key::of(&export).name;
        if self.published.seen(name.clone(), export).is_some() {
            self.dirty.insert(name);
        }
    }

    /// Something published was deleted, by whomever.
    pub fn published_gone(&mut self, export: &ExportedService) {
        let name = Key::of(export).name;
        if self.published.gone(&name, export).is_some() {
            self.dirty.insert(name);
        }
    }

    /// We deleted what is published as `seen`.
    pub fn unpublished(&mut self, seen: &Seen) {
        if let Some(known) = self.published.items.get(&seen.key.name).cloned()
            && known.metadata.uid == seen.uid
        {
            self.published_gone(&known);
        }
    }

    /// Everything is looked at again.
    pub fn mark_all(&mut self) {
        self.dirty.extend(self.services.items.keys().map(export_name));
        self.dirty.extend(self.published.items.keys().cloned());
    }

    /// What is published under `name` is looked at again.
    pub fn mark(&mut self, name: String) {
        self.dirty.insert(name);
    }

    /// What must be written, taken out; none before Services and publications were listed.
    pub fn take_changes(&mut self) -> Vec<(String, Change)> {
        if !self.services.synced || !self.published.synced {
            return Vec::new();
        }
        let names = std::mem::take(&mut self.dirty);
        names.into_iter().filter_map(|name| self.change(&name).map(|change| (name, change))).collect()
    }

    fn change(&self, name: &str) -> Option<Change> {
        let standing = self.published.items.get(name);
        let (namespace, service) = name.split_once('.')?;
        let key = Key::new(namespace, service);
        let Some(exported) = self.services.items.get(&key) else { return diff_export(None, standing) };
        // Until its slices were listed it is not known what is ready.
        let slices = self.slices.get(&key).filter(|slices| slices.synced)?;
        let slices: Vec<&EndpointSlice> = slices.items.values().collect();
        diff_export(Some(&export_of(exported, &slices, &self.namespace)), standing)
    }
}

fn export_name(service: &Key) -> String {
    names::export_name(&service.namespace, &service.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn service(version: &str) -> Service {
        from_value(json!({
            "metadata": {"name": "my-api", "namespace": "default", "uid": "u", "resourceVersion": version,
                "labels": {"mirror.linkerd.io/exported": "true"}},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}
        }))
        .unwrap()
    }

    fn slice(version: &str, ready: bool) -> EndpointSlice {
        from_value(json!({
            "metadata": {"name": "my-api-x", "namespace": "default", "uid": "s", "resourceVersion": version,
                "labels": {"kubernetes.io/service-name": "my-api"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": ready}}],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]
        }))
        .unwrap()
    }

    fn synced() -> ExportTable {
        let mut table = ExportTable::new("linkspan".to_owned());
        table.services_reset(vec![]);
        table.slices_reset(vec![]);
        table.published_reset(vec![]);
        table
    }

    fn created(changes: Vec<(String, Change)>) -> ExportedService {
        match changes.into_iter().next() {
            Some((_, Change::CreateExport(export))) => *export,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_published_before_the_slices_of_a_new_export_were_listed() {
        let mut table = synced();
        table.service_seen(service("1"));
        assert!(table.take_changes().is_empty());
        let (key, events) = table.unlisted().pop().unwrap();
        table.slice_seen(slice("5", false));
        assert!(!table.listed(&key, events, vec![slice("4", true)]), "a slice changed meanwhile");
        let (key, events) = table.unlisted().pop().unwrap();
        assert!(table.listed(&key, events, vec![slice("5", true)]));
        assert!(created(table.take_changes()).spec.ports[0].ready);
        assert!(table.unlisted().is_empty());
    }

    #[test]
    fn what_is_published_follows_the_slices_and_goes_with_the_label() {
        let mut table = synced();
        table.service_seen(service("1"));
        table.slices_reset(vec![slice("4", true)]);
        let mut export = created(table.take_changes());
        (export.metadata.uid, export.metadata.resource_version) = (Some("e".into()), Some("10".into()));
        table.published_seen(export);
        assert!(table.take_changes().is_empty(), "what stands is right");
        table.slice_seen(slice("6", false));
        assert!(
            matches!(&table.take_changes()[..], [(_, Change::UpdateExport(e))] if !e.spec.ports[0].ready)
        );
        let mut unlabelled = service("2");
        unlabelled.metadata.labels = None;
        table.service_gone(&unlabelled);
        assert!(matches!(&table.take_changes()[..], [(_, Change::DeleteExport(_))]));
    }

    #[test]
    fn what_nobody_exports_is_withdrawn_but_only_after_both_were_listed() {
        let stray = ExportedService::new("default.other", Default::default());
        let mut table = ExportTable::new("linkspan".to_owned());
        table.published_reset(vec![stray]);
        assert!(table.take_changes().is_empty());
        table.services_reset(vec![]);
        assert!(matches!(&table.take_changes()[..], [(_, Change::DeleteExport(_))]));
    }
}
