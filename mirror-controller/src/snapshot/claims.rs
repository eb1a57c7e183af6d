//! Which local names the exported Services of linked clusters ask for.
//!
//! Everything that may become of one local name is decided in one place, whoever asks for it: two links whose mirrors
//! would have one name, or a Service and a pod of a headless one, meet here.

use crate::{
    link::view::LinkView,
    snapshot::{Key, Snapshot},
    status::verdict::Verdict,
};
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{MIRRORED, MIRRORED_SERVICE},
    selector,
};
use std::collections::BTreeSet;

/// What asks for a local name: a Service of a linked cluster, or one pod of a headless one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Name of the Link.
    pub link: String,
    /// Namespace in the target cluster, and here.
    pub namespace: String,
    /// The Service in the target cluster.
    pub service: String,
    /// Host name of one pod of it; `None` for the Service itself.
    pub host: Option<String>,
}

/// The local names that `export` of `link` asks for.
fn claims_of(link: &LinkView, export: &ExportedServiceSpec) -> Vec<(Key, Origin)> {
    let is_mirror = export.labels.contains_key(MIRRORED_SERVICE) || export.labels.contains_key(MIRRORED);
    if is_mirror || !selector::matches(link.selector.as_ref(), &export.labels) {
        return Vec::new();
    }
    let claim = |name: &str, host: Option<&str>| {
        let origin = Origin {
            link: link.name.clone(),
            namespace: export.namespace.clone(),
            service: export.name.clone(),
            host: host.map(str::to_owned),
        };
        (Key::new(&export.namespace, format!("{name}-{}", link.cluster_name)), origin)
    };
    let members = export.members.iter().filter(|_| export.headless);
    std::iter::once(claim(&export.name, None))
        .chain(members.map(|member| claim(&member.hostname, Some(&member.hostname))))
        .collect()
}

impl Snapshot {
    /// Works out anew what `export` of `link` asks for.
    pub(super) fn reclaim(&mut self, link: &str, export: &Key) {
        let new =
            match (self.links.items.get(link), self.remotes.get(link).and_then(|r| r.exports.get(export))) {
                (Some(view), Some(spec)) => claims_of(view, spec),
                _ => Vec::new(),
            };
        let claimed = self.claimed.entry(link.to_owned()).or_default();
        let old = if new.is_empty() {
            claimed.remove(export).unwrap_or_default()
        } else {
            claimed.insert(export.clone(), new.clone()).unwrap_or_default()
        };
        for (key, origin) in old.iter().filter(|claim| !new.contains(claim)) {
            self.unclaim(key, origin);
        }
        for (key, origin) in new {
            self.dirty.insert(key.clone());
            self.verdicts.entry(origin.clone()).or_insert(Verdict::Pending);
            self.claims.entry(key).or_default().insert(origin);
        }
    }

    pub(super) fn unclaim(&mut self, key: &Key, origin: &Origin) {
        if let Some(set) = self.claims.get_mut(key) {
            set.remove(origin);
            if set.is_empty() {
                self.claims.remove(key);
                self.occupied.remove(key);
            }
        }
        self.verdicts.remove(origin);
        self.dirty.insert(key.clone());
    }

    /// Who asks for the local name `key`.
    pub fn claims(&self, key: &Key) -> Option<&BTreeSet<Origin>> {
        self.claims.get(key)
    }

    /// What the target cluster says of `origin`'s Service.
    pub fn export(&self, origin: &Origin) -> Option<&ExportedServiceSpec> {
        self.remotes.get(&origin.link)?.exports.get(&Key::new(&origin.namespace, &origin.service))
    }
}
