//! What happens in this cluster: namespaces, mirrors, slices, gateway pods.

use crate::{
    gateways::table::GatewayPod,
    liveness,
    snapshot::{Key, Snapshot, label, service_of},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::labels::HEADLESS_MIRROR_SVC_NAME;
use std::collections::BTreeMap;

impl Snapshot {
    /// All namespaces there are.
    pub fn namespaces_reset(&mut self, names: impl IntoIterator<Item = String>) {
        let before = self.local_synced();
        let names: BTreeMap<String, ()> = names.into_iter().map(|n| (n, ())).collect();
        let old = std::mem::replace(&mut self.namespaces.items, names.clone());
        self.namespaces.synced = true;
        for name in old.keys().chain(names.keys()).filter(|n| old.contains_key(*n) != names.contains_key(*n))
        {
            self.mark_namespace(name);
        }
        self.mark_if_complete(before);
    }

    /// A namespace appeared.
    pub fn namespace_seen(&mut self, name: &str) {
        if self.namespaces.items.insert(name.to_owned(), ()).is_none() {
            self.mark_namespace(name);
        }
    }

    /// A namespace went, or is going.
    pub fn namespace_gone(&mut self, name: &str) {
        if self.namespaces.items.remove(name).is_some() {
            self.mark_namespace(name);
        }
    }

    fn mark_namespace(&mut self, name: &str) {
        let inside = self.claims.range(Key::new(name, "")..).take_while(|(key, _)| key.namespace == name);
        let keys: Vec<Key> = inside.map(|(key, _)| key.clone()).collect();
        self.dirty.extend(keys);
    }

    /// All Services with the mirror label.
    pub fn services_reset(&mut self, services: Vec<Service>) {
        let before = self.local_synced();
        let changed = self.services.reset(services.into_iter().map(|s| (Key::of(&s), s)));
        for (key, old) in changed {
            self.mark_service(&key, old.as_ref());
        }
        self.mark_if_complete(before);
    }

    /// A Service with the mirror label was made or changed.
    pub fn service_seen(&mut self, service: Service) {
        let key = Key::of(&service);
        if let Some(old) = self.services.seen(key.clone(), service) {
            self.mark_service(&key, old.as_ref());
        }
    }

    /// A Service was deleted, or lost the mirror label.
    pub fn service_gone(&mut self, service: &Service) {
        let key = Key::of(service);
        if let Some(old) = self.services.gone(&key, service) {
            self.mark_service(&key, Some(&old));
        }
    }

    /// A per-pod mirror's address is in the slice of its root, so the root is decided anew with it.
    fn mark_service(&mut self, key: &Key, old: Option<&Service>) {
        let root = |service: &Service| label(&service.metadata, HEADLESS_MIRROR_SVC_NAME).map(str::to_owned);
        let roots = [old.and_then(root), self.services.items.get(key).and_then(root)];
        self.dirty.extend(roots.into_iter().flatten().map(|root| Key::new(&key.namespace, root)));
        self.dirty.insert(key.clone());
    }

    /// All our slices.
    pub fn slices_reset(&mut self, slices: Vec<EndpointSlice>) {
        let before = self.local_synced();
        let changed = self.slices.reset(slices.into_iter().map(|s| (Key::of(&s), s)));
        for (key, old) in changed {
            self.index_slice(&key, old.as_ref());
        }
        self.mark_if_complete(before);
    }

    /// A slice of ours was made or changed.
    pub fn slice_seen(&mut self, slice: EndpointSlice) {
        let key = Key::of(&slice);
        if let Some(old) = self.slices.seen(key.clone(), slice) {
            self.index_slice(&key, old.as_ref());
        }
    }

    /// A slice was deleted, or is ours no longer.
    pub fn slice_gone(&mut self, slice: &EndpointSlice) {
        let key = Key::of(slice);
        if let Some(old) = self.slices.gone(&key, slice) {
            self.index_slice(&key, Some(&old));
        }
    }

    fn index_slice(&mut self, key: &Key, old: Option<&EndpointSlice>) {
        let (before, now) = (old.and_then(service_of), self.slices.items.get(key).and_then(service_of));
        if let Some(service) = &before {
            if let Some(set) = self.slices_of.get_mut(service) {
                set.remove(key);
                if set.is_empty() {
                    self.slices_of.remove(service);
                }
            }
            self.dirty.insert(service.clone());
        }
        if let Some(service) = now {
            self.slices_of.entry(service.clone()).or_default().insert(key.clone());
            self.dirty.insert(service);
        }
    }

    /// Our slices of the Service `service`.
    pub fn slices_of(&self, service: &Key) -> Vec<&EndpointSlice> {
        let keys = self.slices_of.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.items.get(key)).collect()
    }

    /// All gateway pods as they are now.
    pub fn pods_reset(&mut self, pods: BTreeMap<String, GatewayPod>) {
        let before = self.local_synced();
        let old = std::mem::replace(&mut self.pods.items, pods);
        let first = !std::mem::replace(&mut self.pods.synced, true);
        let touch = liveness::touched(&old, &self.pods.items);
        if touch.everything || first {
            self.mark_all();
        }
        for link in touch.links {
            self.mark_link(&link);
        }
        if let Some(ports) = &self.ports {
            let owners = touch.ports.iter().filter_map(|port| ports.owner(*port).cloned());
            let owners: Vec<Key> = owners.collect();
            self.dirty.extend(owners);
        }
        self.mark_if_complete(before);
    }
}
