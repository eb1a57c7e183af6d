//! What is known that concerns splits. Pure.

use crate::{
    snapshot::{Key, Snapshot, label, standing::State},
    split::services::Services,
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::NetworkPolicy};
use kube::ResourceExt;
use linkspan_core::api::{
    labels::{MANAGED_BY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT, SPLIT_APEX},
    names::Target,
    route_group::HTTPRouteGroup,
    split::shadow_name,
    traffic_split::TrafficSplit,
};
use std::collections::{BTreeMap, BTreeSet};

/// One kind of object, whole, and whether it was listed completely.
#[derive(Clone, Debug)]
pub struct Known<V> {
    /// What is known.
    pub items: BTreeMap<Key, V>,
    /// Whether it was listed completely since this process started.
    pub synced: bool,
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), synced: false }
    }
}

impl<V: ResourceExt> Known<V> {
    /// `all` is all there is.
    pub fn reset(&mut self, all: impl IntoIterator<Item = V>) {
        self.items = all.into_iter().map(|object| (Key::of(&object), object)).collect();
        self.synced = true;
    }

    /// `object` is there; an older state than what is known is no news.
    pub fn seen(&mut self, object: V) {
        let key = Key::of(&object);
        let older = |known: &V| State::of(&object).is_older(&State::of(known));
        if !self.items.get(&key).is_some_and(older) {
            self.items.insert(key, object);
        }
    }

    /// `object` was deleted; another may stand under its name by now.
    pub fn gone(&mut self, object: &V) {
        let key = Key::of(object);
        if self.items.get(&key).is_some_and(|known| known.uid() == object.uid()) {
            self.items.remove(&key);
        }
    }
}

/// Everything that decides about splits, apart from the mirrors.
#[derive(Debug, Default)]
pub struct SplitTable {
    /// All splits.
    pub splits: Known<TrafficSplit>,
    /// All route groups.
    pub groups: Known<HTTPRouteGroup>,
    /// The Services that splits concern.
    pub services: Services,
    /// All slices of apexes and shadows, ours and Kubernetes'.
    pub slices: Known<EndpointSlice>,
    /// All network policies.
    pub policies: Known<NetworkPolicy>,
}

/// The slices around one apex.
#[derive(Debug, Default)]
pub struct Slices<'a> {
    /// Those we wrote.
    pub ours: Vec<&'a EndpointSlice>,
    /// Those Kubernetes keeps for the apex itself; known while the apex has our label.
    pub own: Vec<&'a EndpointSlice>,
    /// Those Kubernetes keeps for the shadow.
    pub shadow: Vec<&'a EndpointSlice>,
}

impl SplitTable {
    /// Whether everything was listed.
    pub fn synced(&self) -> bool {
        self.splits.synced
            && self.groups.synced
            && self.services.synced()
            && self.slices.synced
            && self.policies.synced
    }

    /// Has the Services kept that splits name, and those at which anything of ours stands.
    pub fn name_services(&mut self) {
        let mut named = self.touched();
        for (key, split) in &self.splits.items {
            let here = |name: &str| Key::new(&key.namespace, name);
            named.extend([here(&split.spec.service), here(&shadow_name(&split.spec.service))]);
            named.extend(split.spec.backends.iter().map(|backend| here(&backend.service)));
        }
        self.services.name(named);
    }

    /// The slices around `apex`.
    pub fn slices_of(&self, apex: &Key) -> Slices<'_> {
        let mut around = Slices::default();
        let here = self.slices.items.range(Key::new(&apex.namespace, "")..);
        for (_, slice) in here.take_while(|(key, _)| key.namespace == apex.namespace) {
            let of = |key: &str| label(&slice.metadata, key) == Some(apex.name.as_str());
            if of(SPLIT_APEX) {
                around.shadow.push(slice);
            } else if of(SLICE_SERVICE_NAME) {
                let ours = label(&slice.metadata, SLICE_MANAGED_BY) == Some(MANAGED_BY);
                if ours { around.ours.push(slice) } else { around.own.push(slice) }
            }
        }
        around
    }

    /// The shadow of `apex`, if it stands.
    pub fn shadow(&self, apex: &Key) -> Option<&Service> {
        let service = self.services.known.items.get(&Key::new(&apex.namespace, shadow_name(&apex.name)))?;
        (label(&service.metadata, SPLIT_APEX) == Some(apex.name.as_str())).then_some(service)
    }

    /// Apexes at which anything of ours stands.
    pub fn touched(&self) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for (key, service) in &self.services.known.items {
            if let Some(apex) = label(&service.metadata, SPLIT_APEX) {
                touched.insert(Key::new(&key.namespace, apex));
            } else if is_labelled(service) || has_key(service) {
                touched.insert(key.clone());
            }
        }
        for (key, slice) in &self.slices.items {
            if label(&slice.metadata, SLICE_MANAGED_BY) == Some(MANAGED_BY)
                && let Some(apex) = label(&slice.metadata, SLICE_SERVICE_NAME)
            {
                touched.insert(Key::new(&key.namespace, apex));
            }
        }
        touched
    }
}

/// Whether `service` carries our label of an apex.
pub fn is_labelled(service: &Service) -> bool {
    label(&service.metadata, SPLIT) == Some("true")
}

/// Whether our key is in the selector of `service`.
pub fn has_key(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| s.contains_key(SPLIT))
}

/// The selector of `service` without our key.
pub fn user_selector(service: &Service) -> BTreeMap<String, String> {
    let mut selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    selector.remove(SPLIT);
    selector
}

/// A mirror in this cluster: where each of its ports leads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MirrorPorts {
    /// The Link.
    pub link: String,
    /// Where to, by the mirror's port.
    pub ports: BTreeMap<u16, Target>,
}

/// Where the ports of the mirror `key` lead; `None` when there is no such mirror.
pub fn mirror(snapshot: &Snapshot, key: &Key) -> Option<MirrorPorts> {
    snapshot.service(key)?;
    let mut mirror = MirrorPorts::default();
    for route in snapshot.ports.as_ref()?.held(key).into_keys() {
        mirror.ports.insert(route.target.port, route.target);
        mirror.link = route.link;
    }
    Some(mirror)
}
