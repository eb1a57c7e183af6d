//! What the controller knows, as plain values: both sides of every link.
//!
//! Watches bring events in, [`crate::desired`] asks. Every change marks the local names it can matter to as dirty; a
//! name is decided anew as a whole, so the order of events does not matter. Each side says whether it was listed
//! completely (`synced`): before that, nothing is deleted.

mod claims;
mod listed;
mod local;

pub use claims::Origin;
pub use listed::Listed;

use crate::{
    gateways::table::GatewayPod,
    link::view::LinkView,
    ports::Ports,
    status::verdict::{Failure, Verdict},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{CLUSTER_NAME, SLICE_SERVICE_NAME},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Namespace and name of a namespaced object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Namespace and name of `object`.
    pub fn of(object: &impl kube::ResourceExt) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of one link's target cluster.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Its exported Services, by namespace and name there.
    pub exports: BTreeMap<Key, ExportedServiceSpec>,
    /// Whether they were listed completely since this process started.
    pub synced: bool,
}

/// Everything that decides what mirrors look like.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Links, by name.
    pub links: Listed<String, LinkView>,
    /// This cluster's namespaces.
    pub namespaces: Listed<String, ()>,
    /// This cluster's Services that carry the mirror label.
    pub services: Listed<Key, Service>,
    /// Our EndpointSlices.
    pub slices: Listed<Key, EndpointSlice>,
    /// This cluster's gateway pods, by name.
    pub pods: Listed<String, GatewayPod>,
    /// The target clusters, by name of the Link.
    pub remotes: BTreeMap<String, Remote>,
    /// The gateway's ports; `None` until they were read back after this replica became leader.
    pub ports: Option<Ports>,
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
    claims: BTreeMap<Key, BTreeSet<Origin>>,
    claimed: BTreeMap<String, BTreeMap<Key, Vec<(Key, Origin)>>>,
    occupied: BTreeMap<Key, String>,
    verdicts: BTreeMap<Origin, Verdict>,
    dirty: BTreeSet<Key>,
}

impl Snapshot {
    /// Whether this cluster's side was listed completely.
    pub fn local_synced(&self) -> bool {
        self.links.synced
            && self.namespaces.synced
            && self.services.synced
            && self.slices.synced
            && self.pods.synced
            && self.ports.is_some()
    }

    /// Names that must be decided anew, taken out.
    pub fn take_dirty(&mut self, at_most: usize) -> Vec<Key> {
        let taken: Vec<Key> = self.dirty.iter().take(at_most).cloned().collect();
        for key in &taken {
            self.dirty.remove(key);
        }
        taken
    }

    /// Whether any name must be decided anew.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// How many names must be decided anew.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// `key` must be decided anew.
    pub fn mark(&mut self, key: Key) {
        self.dirty.insert(key);
    }

    /// Every name that is claimed, or holds anything of ours, must be decided anew.
    pub fn mark_all(&mut self) {
        self.dirty.extend(self.claims.keys().cloned());
        self.dirty.extend(self.services.items.keys().cloned());
        self.dirty.extend(self.slices_of.keys().cloned());
        if let Some(ports) = &self.ports {
            self.dirty.extend(ports.mirrors().cloned());
        }
    }

    /// Everything of link `link` must be decided anew.
    pub fn mark_link(&mut self, link: &str) {
        let claimed = self.claimed.get(link).into_iter().flat_map(BTreeMap::values).flatten();
        self.dirty.extend(claimed.map(|(key, _)| key.clone()));
        let labelled =
            self.services.items.iter().filter(|(_, s)| label(&s.metadata, CLUSTER_NAME) == Some(link));
        self.dirty.extend(labelled.map(|(key, _)| key.clone()));
        let slices = self.slices.items.values().filter(|s| label(&s.metadata, CLUSTER_NAME) == Some(link));
        self.dirty.extend(slices.filter_map(service_of));
    }

    /// The names where the listing of one side may now allow a deletion.
    fn mark_if_complete(&mut self, before: bool) {
        if !before && self.local_synced() {
            self.mark_all();
        }
    }

    /// All Links there are.
    pub fn links_reset(&mut self, links: Vec<LinkView>) {
        let before = self.local_synced();
        let now: BTreeSet<&str> = links.iter().map(|l| l.name.as_str()).collect();
        let gone: Vec<String> =
            self.links.items.keys().filter(|n| !now.contains(n.as_str())).cloned().collect();
        for name in gone {
            self.link_gone(&name);
        }
        for link in links {
            self.link_seen(link);
        }
        self.links.synced = true;
        self.mark_if_complete(before);
    }

    /// A Link was made or changed.
    pub fn link_seen(&mut self, link: LinkView) {
        if self.links.items.get(&link.name) == Some(&link) {
            return;
        }
        let name = link.name.clone();
        self.mark_link(&name);
        self.links.items.insert(name.clone(), link);
        let exports: Vec<Key> =
            self.remotes.get(&name).map(|r| r.exports.keys().cloned().collect()).unwrap_or_default();
        for export in exports {
            self.reclaim(&name, &export);
        }
    }

    /// A Link was deleted.
    pub fn link_gone(&mut self, name: &str) {
        self.mark_link(name);
        if let Some(claimed) = self.claimed.remove(name) {
            for (key, origin) in claimed.into_values().flatten() {
                self.unclaim(&key, &origin);
            }
        }
        self.remotes.remove(name);
        self.links.items.remove(name);
    }

    /// All exported Services of link `link`'s target.
    pub fn exports_reset(&mut self, link: &str, exports: Vec<ExportedServiceSpec>) {
        // The last words of a watch whose Link was just deleted.
        if !self.links.items.contains_key(link) {
            return;
        }
        let exports: BTreeMap<Key, ExportedServiceSpec> =
            exports.into_iter().map(|e| (Key::new(&e.namespace, &e.name), e)).collect();
        let remote = self.remotes.entry(link.to_owned()).or_default();
        let first = !std::mem::replace(&mut remote.synced, true);
        let before = std::mem::replace(&mut remote.exports, exports.clone());
        let touched: BTreeSet<Key> = before.keys().chain(exports.keys()).cloned().collect();
        for export in touched.iter().filter(|key| before.get(key) != exports.get(key)) {
            self.reclaim(link, export);
        }
        if first {
            self.mark_link(link);
        }
    }

    /// A Service of link `link`'s target was exported, or changed.
    pub fn export_seen(&mut self, link: &str, export: ExportedServiceSpec) {
        if !self.links.items.contains_key(link) {
            return;
        }
        let key = Key::new(&export.namespace, &export.name);
        let remote = self.remotes.entry(link.to_owned()).or_default();
        if remote.exports.get(&key) != Some(&export) {
            remote.exports.insert(key.clone(), export);
            self.reclaim(link, &key);
        }
    }

    /// A Service of link `link`'s target is exported no longer.
    pub fn export_gone(&mut self, link: &str, export: &Key) {
        if self.remotes.get_mut(link).is_some_and(|r| r.exports.remove(export).is_some()) {
            self.reclaim(link, export);
        }
    }

    /// A Service that is not ours holds the name `key`; `whose` says what it is.
    pub fn occupied(&mut self, key: Key, whose: String) {
        self.occupied.insert(key, whose);
    }

    /// No Service that is not ours holds the name `key`.
    pub fn forget_occupied(&mut self, key: &Key) {
        self.occupied.remove(key);
    }

    /// What is known of a Service that is not ours under the name `key`.
    pub fn occupant(&self, key: &Key) -> Option<&str> {
        self.occupied.get(key).map(String::as_str)
    }

    /// Notes what became of `origin`, while it is claimed at all.
    pub fn judge(&mut self, origin: &Origin, verdict: Verdict) {
        if let Some(known) = self.verdicts.get_mut(origin) {
            *known = verdict;
        }
    }

    /// Notes that what is claimed at `key` could not be written.
    pub fn write_failed(&mut self, key: &Key, failure: &Failure) {
        for origin in self.claims.get(key).cloned().unwrap_or_default() {
            if matches!(
                self.verdicts.get(&origin),
                Some(Verdict::Mirrored | Verdict::Partly(_) | Verdict::Pending)
            ) {
                self.verdicts.insert(origin, Verdict::Failed(failure.clone()));
            }
        }
    }

    /// What became of everything that link `link` selects.
    pub fn verdicts(&self, link: &str) -> impl Iterator<Item = (&Origin, &Verdict)> {
        let first = Origin { link: link.to_owned(), ..Origin::default() };
        self.verdicts.range(first..).take_while(move |(origin, _)| origin.link == link)
    }
}

/// Value of the label `key`.
pub fn label<'a>(metadata: &'a kube::api::ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The Service that `slice` belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = label(&slice.metadata, SLICE_SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

#[cfg(test)]
mod tests;
