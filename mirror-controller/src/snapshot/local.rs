//! What happens in this cluster: namespaces, mirrors, slices, gateway pods.

use super::{
    GatewayPod, Key, Snapshot,
    claims::Claim,
    standing::{KubernetesSlice, StandingService, StandingSlice, State},
};
use crate::liveness;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one local name.
#[derive(Clone, Debug, Default)]
pub struct Name {
    pub(super) claims: Vec<Claim>,
    pub(super) service: Option<Box<StandingService>>,
    pub(super) slices: Vec<StandingSlice>,
    pub(super) occupied: Option<Box<str>>,
}

impl Name {
    /// Whether link `link` asks for it, or something that stands there says it is that link's.
    pub(super) fn is_of(&self, link: &str) -> bool {
        self.claims.iter().any(|claim| claim.origin.link == link)
            || self.service.as_ref().is_some_and(|s| s.link.as_deref() == Some(link))
            || self.slices.iter().any(|s| s.link.as_deref() == Some(link))
    }

    fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.service.is_none() && self.slices.is_empty() && self.occupied.is_none()
    }
}

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
        let inside = self.names.range(Key::new(name, "")..).take_while(|(key, _)| key.namespace == name);
        let keys: Vec<Key> = inside.map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.mark(key));
    }

    /// Forgets `key` when nothing is known of it.
    pub(super) fn tidy(&mut self, key: &Key) {
        if self.names.get(key).is_some_and(Name::is_empty) {
            self.names.remove(key);
        }
    }

    /// The Service with the mirror label that stands under `key`.
    pub fn service(&self, key: &Key) -> Option<&StandingService> {
        self.names.get(key)?.service.as_deref()
    }

    /// Our slices of the Service `key`.
    pub fn slices_of(&self, key: &Key) -> &[StandingSlice] {
        self.names.get(key).map(|name| name.slices.as_slice()).unwrap_or_default()
    }

    /// All Services with the mirror label.
    pub fn services_reset(&mut self, services: Vec<(Key, StandingService)>) {
        let before = self.local_synced();
        let services: BTreeMap<Key, StandingService> = services.into_iter().collect();
        let stood =
            self.names.iter().filter(|(key, name)| name.service.is_some() && !services.contains_key(key));
        let gone: Vec<Key> = stood.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.put_service(&key, None);
        }
        for (key, service) in services {
            self.service_seen(&key, service);
        }
        self.services_synced = true;
        self.mark_if_complete(before);
    }

    /// A Service with the mirror label was made or changed. Our own writes come back by the watch, and an older state
    /// may arrive after a newer one: neither is news.
    pub fn service_seen(&mut self, key: &Key, service: StandingService) {
        let known = self.service(key);
        if known.is_none_or(|known| *known != service && !service.state.is_older(&known.state)) {
            self.put_service(key, Some(Box::new(service)));
        }
    }

    /// A Service was deleted in this last state, or lost the mirror label.
    pub fn service_gone(&mut self, key: &Key, state: &State) {
        let known = self.service(key).map(|known| &known.state);
        if known.is_some_and(|known| known.uid == state.uid && !state.is_older(known)) {
            self.put_service(key, None);
        }
    }

    /// A per-pod mirror's address is in the slice of its root, so the root is decided anew with it.
    fn put_service(&mut self, key: &Key, service: Option<Box<StandingService>>) {
        let root = |service: &StandingService| Some(Key::new(&key.namespace, &**service.root.as_ref()?));
        let name = self.names.entry(key.clone()).or_default();
        let new_root = service.as_deref().and_then(root);
        let old = std::mem::replace(&mut name.service, service);
        let old_root = old.as_deref().and_then(root);
        let touched = new_root.into_iter().chain(old_root).chain([key.clone()]);
        touched.for_each(|key| self.mark(key));
        self.tidy(key);
    }

    /// All our slices, each with the Service it is kept with.
    pub fn slices_reset(&mut self, slices: Vec<(Key, StandingSlice)>) {
        let before = self.local_synced();
        let listed: BTreeSet<(&Key, &str)> = slices.iter().map(|(key, slice)| (key, &*slice.name)).collect();
        let mut gone = Vec::new();
        for (key, name) in &self.names {
            let missing = name.slices.iter().filter(|slice| !listed.contains(&(key, &*slice.name)));
            gone.extend(missing.map(|slice| (key.clone(), slice.name.clone())));
        }
        for (key, name) in gone {
            self.drop_slice(&key, &name);
        }
        for (key, slice) in slices {
            self.slice_seen(&key, slice);
        }
        self.slices_synced = true;
        self.mark_if_complete(before);
    }

    /// A slice of ours, kept with the Service `key`, was made or changed.
    pub fn slice_seen(&mut self, key: &Key, slice: StandingSlice) {
        let slices = &mut self.names.entry(key.clone()).or_default().slices;
        match slices.iter_mut().find(|known| known.name == slice.name) {
            Some(known) if *known == slice || slice.state.is_older(&known.state) => return,
            Some(known) => *known = slice,
            None => {
                slices.reserve_exact(1);
                slices.push(slice);
            }
        }
        self.mark(key.clone());
    }

    /// The slice `name`, kept with the Service `key`, was deleted in this last state, or is ours no longer.
    pub fn slice_gone(&mut self, key: &Key, name: &str, state: &State) {
        let known = self.slices_of(key).iter().find(|known| &*known.name == name);
        if known.is_some_and(|known| known.state.uid == state.uid && !state.is_older(&known.state)) {
            self.drop_slice(key, name);
        }
    }

    fn drop_slice(&mut self, key: &Key, name: &str) {
        if let Some(known) = self.names.get_mut(key) {
            known.slices.retain(|slice| &*slice.name != name);
        }
        self.mark(key.clone());
        self.tidy(key);
    }

    /// Whether a Service of this name may be a mirror: only of those it matters what slices Kubernetes made.
    pub fn may_be_mirror(&self, service: &Key) -> bool {
        let suffix = |link: &str| service.name.strip_suffix(link).is_some_and(|rest| rest.ends_with('-'));
        self.links.items.values().any(|link| suffix(&link.cluster_name))
    }

    /// All slices that Kubernetes made for Services that may be mirrors.
    pub fn kubernetes_slices_reset(&mut self, slices: Vec<(Key, KubernetesSlice)>) {
        self.kubernetes_slices.clear();
        for (service, slice) in slices {
            self.kubernetes_slice_seen(service, slice);
        }
    }

    /// Kubernetes made or changed a slice for a Service that may be a mirror.
    pub fn kubernetes_slice_seen(&mut self, service: Key, slice: KubernetesSlice) {
        self.mark(service.clone());
        let slices = self.kubernetes_slices.entry(service).or_default();
        slices.retain(|known| known.key != slice.key);
        slices.push(slice);
    }

    /// A slice that Kubernetes made is gone.
    pub fn kubernetes_slice_gone(&mut self, slice: &Key, uid: &str) {
        self.kubernetes_slices.retain(|_, slices| {
            slices.retain(|known| known.key != *slice || *known.state.uid != *uid);
            !slices.is_empty()
        });
    }

    /// The slices that Kubernetes made for `service`, which mirrors for us: somebody gave it a selector once, and
    /// traffic would go past the gateway.
    pub fn kubernetes_slices_of(&self, key: &Key, service: &StandingService) -> Vec<&KubernetesSlice> {
        let slices = self.kubernetes_slices.get(key).into_iter().flatten();
        slices.filter(|slice| slice.owner == service.state.uid).collect()
    }

    /// A Service that is not ours holds the name `key`; `whose` says what it is.
    pub fn occupied(&mut self, key: Key, whose: &str) {
        self.names.entry(key).or_default().occupied = Some(whose.into());
    }

    /// No Service that is not ours holds the name `key`.
    pub fn forget_occupied(&mut self, key: &Key) {
        if let Some(name) = self.names.get_mut(key) {
            name.occupied = None;
        }
        self.tidy(key);
    }

    /// What is known of a Service that is not ours under the name `key`.
    pub fn occupant(&self, key: &Key) -> Option<&str> {
        self.names.get(key)?.occupied.as_deref()
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
            owners.into_iter().for_each(|key| self.mark(key));
        }
        self.mark_if_complete(before);
    }
}
