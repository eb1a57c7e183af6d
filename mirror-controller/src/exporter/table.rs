//! Exported Services, their slices, and what is published: what is known, and what must be written. Pure.
//!
//! Slices of Services that are not exported are not kept. So when a Service becomes exported its slices are listed
//! once; until then nothing is written for it.

use crate::{
    diff::{Change, diff_export},
    exporter::{
        desired::{export_of, is_exported},
        withheld::Withheld,
    },
    snapshot::{Key, Listed, packed::PackedObject, standing::State},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::{exported_service::ExportedService, names};
use std::collections::{BTreeMap, BTreeSet};

/// A slice, by its name.
pub type NamedSlice = (String, PackedObject<EndpointSlice>);

/// Everything that decides what is published.
#[derive(Debug, Default)]
pub struct ExportTable {
    namespace: String,
    /// The namespaces that may export; `None`: all may.
    gate: Option<Gate>,
    services: Listed<Key, PackedObject<Service>>,
    slices: BTreeMap<Key, Listed<String, PackedObject<EndpointSlice>>>,
    slices_synced: bool,
    /// What was exported when the list of all slices under way began: of these it brings everything.
    listing: BTreeSet<Key>,
    published: Listed<String, PackedObject<ExportedService>>,
    /// Grows with each event about a Service's slices.
    events: BTreeMap<Key, u64>,
    unlisted: BTreeSet<Key>,
    dirty: BTreeSet<String>,
    withheld: Withheld,
}

/// The namespaces that may export.
#[derive(Debug, Default)]
struct Gate {
    open: BTreeSet<String>,
    synced: bool,
}

impl ExportTable {
    /// Publishes in `namespace`. `gated`: only what is in the namespaces that [`ExportTable::gate_reset`] names.
    pub fn new(namespace: String, gated: bool) -> Self {
        Self { namespace, gate: gated.then(Gate::default), ..Self::default() }
    }

    /// All namespaces that may export.
    pub fn gate_reset(&mut self, open: impl IntoIterator<Item = String>) {
        self.gate = Some(Gate { open: open.into_iter().collect(), synced: true });
        self.mark_all();
    }

    /// Namespace `name` may export from now on, or may not.
    pub fn gate(&mut self, name: &str, open: bool) {
        let gate = self.gate.get_or_insert_default();
        let changed = if open { gate.open.insert(name.to_owned()) } else { gate.open.remove(name) };
        if changed {
            let inside = self.services.items.range(Key::new(name, "")..);
            let inside = inside.take_while(|(key, _)| key.namespace == name).map(|(key, _)| export_name(key));
            self.dirty.extend(inside);
        }
    }

    fn is_open(&self, namespace: &str) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.open.contains(namespace))
    }

    /// All Services with the export label.
    pub fn services_reset(&mut self, services: Vec<Service>) {
        let exported = services.into_iter().filter(is_exported).map(|s| (Key::of(&s), packed(s)));
        for key in self.services.reset(exported) {
            self.touch(&key);
        }
        self.mark_all();
    }

    /// A Service with the export label was made or changed.
    pub fn service_seen(&mut self, service: Service) {
        let key = Key::of(&service);
        if !is_exported(&service) {
            self.service_gone(&key, &State::of(&service));
        } else if self.services.seen(key.clone(), packed(service)) {
            self.touch(&key);
        }
    }

    /// A Service was deleted in this last state, or is exported no longer.
    pub fn service_gone(&mut self, key: &Key, state: &State) {
        if self.services.gone(key, state) {
            self.touch(key);
        }
    }

    fn touch(&mut self, key: &Key) {
        self.dirty.insert(export_name(key));
        if !self.services.items.contains_key(key) {
            self.slices.remove(key);
            self.unlisted.remove(key);
            self.listing.remove(key);
            self.events.remove(key);
        } else if !self.slices.contains_key(key) {
            self.unlisted.insert(key.clone());
        }
    }

    /// Whether `service` carries the export label: of others, no slice is kept.
    pub fn is_labelled(&self, service: &Key) -> bool {
        self.services.items.contains_key(service)
    }

    /// A list of all slices begins.
    pub fn slices_begin(&mut self) {
        self.listing = self.services.items.keys().cloned().collect();
    }

    /// All slices there are that others than we keep, as far as they are of Services with the export label.
    pub fn slices_reset(&mut self, slices: Vec<(Key, NamedSlice)>) {
        let mut by_service: BTreeMap<Key, Vec<NamedSlice>> = BTreeMap::new();
        for (service, slice) in slices {
            by_service.entry(service).or_default().push(slice);
        }
        self.slices_synced = true;
        for service in std::mem::take(&mut self.listing) {
            let slices = by_service.remove(&service).unwrap_or_default();
            *self.events.entry(service.clone()).or_default() += 1;
            self.take_in(&service, slices);
        }
    }

    /// A slice of `service` that others keep was made or changed.
    pub fn slice_seen(&mut self, service: &Key, (name, slice): NamedSlice) {
        if self.has_news_of(service) && self.slices.entry(service.clone()).or_default().seen(name, slice) {
            self.dirty.insert(export_name(service));
        }
    }

    /// A slice of `service` that others keep was deleted in this last state.
    pub fn slice_gone(&mut self, service: &Key, name: &String, state: &State) {
        if self.has_news_of(service)
            && let Some(slices) = self.slices.get_mut(service)
            && slices.gone(name, state)
        {
            self.dirty.insert(export_name(service));
        }
    }

    fn has_news_of(&mut self, service: &Key) -> bool {
        let labelled = self.is_labelled(service);
        if labelled {
            *self.events.entry(service.clone()).or_default() += 1;
        }
        labelled
    }

    /// Services whose slices must be listed, each with what [`ExportTable::listed`] needs. None before the first list
    /// of all slices, which brings those of all Services exported by then.
    pub fn unlisted(&self) -> Vec<(Key, u64)> {
        let unlisted = self.unlisted.iter().filter(|_| self.slices_synced);
        unlisted.map(|key| (key.clone(), self.events.get(key).copied().unwrap_or_default())).collect()
    }

    /// The slices of `service` were listed. Whether that can be used: not when a slice changed meanwhile.
    pub fn listed(&mut self, service: &Key, events: u64, slices: Vec<NamedSlice>) -> bool {
        let usable = self.events.get(service).copied().unwrap_or_default() == events;
        if usable && self.is_labelled(service) {
            self.take_in(service, slices);
        }
        usable
    }

    fn take_in(&mut self, service: &Key, slices: Vec<NamedSlice>) {
        let known = self.slices.entry(service.clone()).or_default();
        let first = !known.synced;
        if !known.reset(slices).is_empty() || first {
            self.dirty.insert(export_name(service));
        }
        self.unlisted.remove(service);
    }

    /// All that is published.
    pub fn published_reset(&mut self, published: Vec<(String, PackedObject<ExportedService>)>) {
        for name in self.published.reset(published) {
            self.dirty.insert(name);
        }
        self.mark_all();
    }

    /// Something published was made or changed, by whomever.
    pub fn published_seen(&mut self, name: &str, export: PackedObject<ExportedService>) {
        if self.published.seen(name.to_owned(), export) {
            self.dirty.insert(name.to_owned());
        }
    }

    /// Something published was deleted in this last state, by whomever.
    pub fn published_gone(&mut self, name: &String, state: &State) {
        if self.published.gone(name, state) {
            self.dirty.insert(name.clone());
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

    /// What must be written, taken out; none before Services, publications and the namespaces that may export were
    /// listed.
    pub fn take_changes(&mut self) -> Vec<(String, Change)> {
        let gated = self.gate.as_ref().is_none_or(|gate| gate.synced);
        if !self.services.synced || !self.published.synced || !gated {
            return Vec::new();
        }
        let names = std::mem::take(&mut self.dirty);
        for key in names.iter().filter_map(|name| service_named(name)) {
            let withheld = self.services.items.get(&key).filter(|_| !self.is_open(&key.namespace));
            let uid = withheld.map(|service| service.state.uid.to_string());
            self.withheld.looked_at(&key, uid);
        }
        names.into_iter().filter_map(|name| self.change(&name).map(|change| (name, change))).collect()
    }

    /// At most `most` Services, by name and uid, of which it must be told that their namespace may not export, taken out.
    /// [`ExportTable::take_changes`] finds them.
    pub fn take_withheld(&mut self, most: usize) -> Vec<(Key, String)> {
        self.withheld.take(most)
    }

    /// Whether [`ExportTable::take_withheld`] has more.
    pub fn has_withheld(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// It could not be told that `service` is withheld. Returns the name to mark for another attempt.
    pub fn withheld_not_told(&mut self, service: &Key) -> String {
        self.withheld.not_told(service);
        export_name(service)
    }

    fn change(&self, name: &str) -> Option<Change> {
        let published = Key::new(&self.namespace, name);
        let standing = self.published.items.get(name).map(|standing| (&published, standing));
        let exported = service_named(name).filter(|key| self.is_open(&key.namespace));
        let Some((key, exported)) = exported.and_then(|key| self.services.items.get_key_value(&key)) else {
            return diff_export(None, standing);
        };
        // Until its slices were listed it is not known what is ready.
        let slices = self.slices.get(key).filter(|slices| slices.synced)?;
        let slices: Vec<EndpointSlice> = slices.items.values().map(|slice| slice.object.open()).collect();
        let slices: Vec<&EndpointSlice> = slices.iter().collect();
        diff_export(Some(&export_of(&exported.object.open(), &slices, &self.namespace)), standing)
    }
}

fn packed(mut service: Service) -> PackedObject<Service> {
    service.status = None;
    PackedObject::new(service)
}

fn export_name(service: &Key) -> String {
    names::export_name(&service.namespace, &service.name)
}

/// The Service that is published under `name`.
fn service_named(name: &str) -> Option<Key> {
    name.split_once('.').map(|(namespace, service)| Key::new(namespace, service))
}

#[cfg(test)]
mod tests;
