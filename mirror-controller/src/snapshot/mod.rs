//! What the controller knows, as plain values: both sides of every link.
//!
//! Watches bring events in, [`crate::desired`] asks. Every change marks the local names it can matter to as dirty; a
//! name is decided anew as a whole, so the order of events does not matter. Each side says whether it was listed
//! completely (`synced`): before that, nothing is deleted.
//!
//! What is kept is small ([`standing`], [`packed`]): there may be ten thousand mirrors. Names wait in `backlog`.

mod backlog;
mod claims;
mod listed;
mod local;
pub mod packed;
mod print;
pub mod standing;

use backlog::Backlog;
pub use claims::{Counts, Origin};
pub use listed::Listed;
pub use local::Name;
pub use print::Print;

use crate::{
    gateways::table::GatewayPod,
    link::view::LinkView,
    observe::watch::Lost,
    ports::Ports,
    snapshot::{packed::Packed, standing::KubernetesSlice},
    status::verdict::{Failure, Verdict},
};
use k8s_openapi::{api::discovery::v1::EndpointSlice, apimachinery::pkg::apis::meta::v1::LabelSelector};
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{CLUSTER_NAME, SLICE_SERVICE_NAME},
    selector, split,
};
use std::{collections::BTreeMap, fmt, sync::Arc};

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
    exports: BTreeMap<Key, Packed<ExportedServiceSpec>>,
    /// Whether its exported Services were listed completely since this process started.
    pub synced: bool,
}

impl Remote {
    /// How many exported Services it has.
    pub fn len(&self) -> usize {
        self.exports.len()
    }

    /// Whether it exports nothing.
    pub fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }

    /// Its exported Services.
    pub fn exports(&self) -> impl Iterator<Item = ExportedServiceSpec> {
        self.exports.values().map(Packed::open)
    }
}

/// Everything that decides what mirrors look like.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Links, by name.
    pub links: Listed<String, LinkView>,
    /// This cluster's namespaces.
    pub namespaces: Listed<String, ()>,
    /// This cluster's gateway pods, by name.
    pub pods: Listed<String, GatewayPod>,
    /// The target clusters, by name of the Link.
    pub remotes: BTreeMap<String, Remote>,
    /// The gateway's ports; `None` until they were read back after this replica became leader.
    pub ports: Option<Ports>,
    /// Which missing namespaces are made; see [`Snapshot::makes_namespace`].
    pub create_namespaces: Option<LabelSelector>,
    /// What of this cluster cannot be watched at present.
    pub lost: BTreeMap<&'static str, Lost>,
    names: BTreeMap<Key, Name>,
    services_synced: bool,
    slices_synced: bool,
    kubernetes_slices: BTreeMap<Key, Vec<KubernetesSlice>>,
    troubles: BTreeMap<Arc<Origin>, Verdict>,
    mirrored: BTreeMap<String, usize>,
    backlog: Backlog,
}

impl Snapshot {
    /// Whether this cluster's side was listed completely.
    pub fn local_synced(&self) -> bool {
        self.links.synced
            && self.namespaces.synced
            && self.services_synced
            && self.slices_synced
            && self.pods.synced
            && self.ports.is_some()
    }

    /// Names that must be decided anew, taken out in the order of their turns.
    pub fn take_dirty(&mut self, at_most: usize) -> Vec<Key> {
        std::iter::from_fn(|| self.backlog.next()).take(at_most).collect()
    }

    /// Whether any name must be decided anew.
    pub fn is_dirty(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// How many names must be decided anew.
    pub fn dirty_len(&self) -> usize {
        self.backlog.len()
    }

    /// `key` must be decided anew.
    pub fn mark(&mut self, key: Key) {
        let stands = self.service(&key).is_some();
        self.backlog.add(key, stands);
    }

    /// Every name that is claimed, or holds anything of ours, must be decided anew.
    pub fn mark_all(&mut self) {
        let held = self.ports.iter().flat_map(|ports| ports.mirrors());
        let all: Vec<Key> = self.names.keys().chain(held).cloned().collect();
        all.into_iter().for_each(|key| self.mark(key));
    }

    /// Everything of link `link` must be decided anew.
    pub fn mark_link(&mut self, link: &str) {
        let of_link = self.names.iter().filter(|(_, name)| name.is_of(link));
        let all: Vec<Key> = of_link.map(|(key, _)| key.clone()).collect();
        all.into_iter().for_each(|key| self.mark(key));
    }

    /// The names where the listing of one side may now allow a deletion.
    fn mark_if_complete(&mut self, before: bool) {
        if !before && self.local_synced() {
            self.mark_all();
        }
    }

    /// Whether namespace `namespace` is made where link `link` wants a mirror in it and it is missing. The selector is
    /// asked about the labels it would have: its name, and the Link's.
    pub fn makes_namespace(&self, namespace: &str, link: &str) -> bool {
        let labels = [(NAMESPACE_NAME, namespace), (CLUSTER_NAME, link)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        selector::matches(self.create_namespaces.as_ref(), &labels)
    }
}

/// Label that Kubernetes gives every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Value of the label `key`.
pub fn label<'a>(metadata: &'a kube::api::ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The Service whose pods `slice` lists: the apex for those of its shadow, otherwise the one it belongs to.
pub fn served_by(slice: &EndpointSlice) -> Option<Key> {
    let name = split::served_by(slice.metadata.labels.as_ref()?, SLICE_SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// The Service that `slice` belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = label(&slice.metadata, SLICE_SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

#[cfg(test)]
mod tests;
