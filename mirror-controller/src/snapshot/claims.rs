//! Which local names the exported Services of linked clusters ask for, and what became of each.
//!
//! Everything that may become of one local name is decided in one place, whoever asks for it: two links whose mirrors
//! would have one name, or a Service and a pod of a headless one, meet here.

use super::{Failure, Key, LinkView, Packed, Snapshot, Verdict};
use linkspan_core::api::{
    exported_service::ExportedServiceSpec,
    labels::{MIRRORED, MIRRORED_SERVICE},
    selector,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

/// Who asks for a name, and whether all of its mirror stands there; if not, the snapshot's `troubles` say why.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) origin: Arc<Origin>,
    pub(super) mirrored: bool,
}

/// What became of everything that one link selects, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Mirrors that stand.
    pub mirrored: usize,
    /// Services without a mirror.
    pub failing: usize,
    /// Of those: a Service that is not ours has the name.
    pub conflicts: usize,
    /// Not decided yet.
    pub pending: usize,
}

type Claims = Vec<(Key, Origin)>;

/// The local names that `export` of `link` asks for.
fn claims_of(link: Option<&LinkView>, export: Option<&ExportedServiceSpec>) -> Claims {
    let (Some(link), Some(export)) = (link, export) else { return Vec::new() };
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
        self.mark_link(&link.name);
        let old = self.links.items.get(&link.name).cloned();
        for export in self.exports_of(&link.name) {
            self.reclaim(claims_of(old.as_ref(), Some(&export)), claims_of(Some(&link), Some(&export)));
        }
        self.links.items.insert(link.name.clone(), link);
    }

    /// A Link was deleted.
    pub fn link_gone(&mut self, name: &str) {
        self.mark_link(name);
        let old = self.links.items.remove(name);
        for export in self.exports_of(name) {
            self.reclaim(claims_of(old.as_ref(), Some(&export)), Vec::new());
        }
        self.remotes.remove(name);
        self.mirrored.remove(name);
    }

    fn exports_of(&self, link: &str) -> Vec<ExportedServiceSpec> {
        self.remotes.get(link).map(|remote| remote.exports().collect()).unwrap_or_default()
    }

    /// All exported Services of link `link`'s target.
    pub fn exports_reset(&mut self, link: &str, exports: Vec<ExportedServiceSpec>) {
        let exports = exports.into_iter().map(|e| (Key::new(&e.namespace, &e.name), Packed::new(&e)));
        self.exports_replace(link, exports.collect());
    }

    /// The same, of exports that are packed already.
    pub fn exports_replace(&mut self, link: &str, exports: BTreeMap<Key, Packed<ExportedServiceSpec>>) {
        // The last words of a watch whose Link was just deleted.
        let Some(view) = self.links.items.get(link).cloned() else { return };
        let remote = self.remotes.entry(link.to_owned()).or_default();
        let first = !std::mem::replace(&mut remote.synced, true);
        let gone: Vec<Key> =
            remote.exports.keys().filter(|key| !exports.contains_key(key)).cloned().collect();
        for key in gone {
            self.export_gone(link, &key);
        }
        for (key, export) in exports {
            self.take_export(&view, key, export);
        }
        if first {
            self.mark_link(link);
        }
    }

    /// A Service of link `link`'s target was exported, or changed. Returns the names it asks for, if that is news.
    pub fn export_seen(&mut self, link: &str, export: &ExportedServiceSpec) -> Vec<Key> {
        let Some(view) = self.links.items.get(link).cloned() else { return Vec::new() };
        self.take_export(&view, Key::new(&export.namespace, &export.name), Packed::new(export))
    }

    fn take_export(&mut self, link: &LinkView, key: Key, export: Packed<ExportedServiceSpec>) -> Vec<Key> {
        let remote = self.remotes.entry(link.name.clone()).or_default();
        if remote.exports.get(&key) == Some(&export) {
            return Vec::new();
        }
        let new = claims_of(Some(link), Some(&export.open()));
        let names = new.iter().map(|(name, _)| name.clone()).collect();
        let old = remote.exports.insert(key, export).map(|packed| packed.open());
        self.reclaim(claims_of(Some(link), old.as_ref()), new);
        names
    }

    /// A Service of link `link`'s target is exported no longer.
    pub fn export_gone(&mut self, link: &str, export: &Key) {
        let old =
            self.remotes.get_mut(link).and_then(|r| r.exports.remove(export)).map(|packed| packed.open());
        let claims = claims_of(self.links.items.get(link), old.as_ref());
        self.reclaim(claims, Vec::new());
    }

    /// What the target cluster says of `origin`'s Service.
    pub fn export(&self, origin: &Origin) -> Option<ExportedServiceSpec> {
        let key = Key::new(&origin.namespace, &origin.service);
        Some(self.remotes.get(&origin.link)?.exports.get(&key)?.open())
    }

    /// One exported Service asked for the names `old`, and asks for `new` now.
    fn reclaim(&mut self, old: Claims, new: Claims) {
        for (key, origin) in old.into_iter().filter(|claim| !new.contains(claim)) {
            self.unclaim(&key, &origin);
        }
        for (key, origin) in new {
            self.mark(key.clone());
            let claims = &mut self.names.entry(key).or_default().claims;
            if let Err(place) = claims.binary_search_by(|claim| (*claim.origin).cmp(&origin)) {
                let origin = Arc::new(origin);
                claims.reserve_exact(1);
                claims.insert(place, Claim { origin: origin.clone(), mirrored: false });
                self.troubles.insert(origin, Verdict::Pending);
            }
        }
    }

    fn unclaim(&mut self, key: &Key, origin: &Origin) {
        self.mark(key.clone());
        let Some(name) = self.names.get_mut(key) else { return };
        let Ok(place) = name.claims.binary_search_by(|claim| (*claim.origin).cmp(origin)) else { return };
        if name.claims.remove(place).mirrored {
            self.count_mirrored(&origin.link, false);
        }
        self.troubles.remove(origin);
        let unclaimed = self.names.get_mut(key).filter(|name| name.claims.is_empty());
        if let Some(name) = unclaimed {
            name.occupied = None;
        }
        self.tidy(key);
    }

    /// Who asks for the local name `key`, in order.
    pub fn claims(&self, key: &Key) -> impl Iterator<Item = &Origin> + Clone {
        self.names.get(key).into_iter().flat_map(|name| &name.claims).map(|claim| &*claim.origin)
    }

    /// Notes what became of `origin` at the name `key`, while it is claimed at all.
    pub fn judge(&mut self, key: &Key, origin: &Origin, verdict: Verdict) {
        let Some(name) = self.names.get_mut(key) else { return };
        let Ok(place) = name.claims.binary_search_by(|claim| (*claim.origin).cmp(origin)) else { return };
        let claim = &mut name.claims[place];
        let mirrored = verdict == Verdict::Mirrored;
        let before = std::mem::replace(&mut claim.mirrored, mirrored);
        if mirrored {
            self.troubles.remove(origin);
        } else {
            self.troubles.insert(claim.origin.clone(), verdict);
        }
        if before != mirrored {
            self.count_mirrored(&origin.link, mirrored);
        }
    }

    fn count_mirrored(&mut self, link: &str, more: bool) {
        let count = self.mirrored.entry(link.to_owned()).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Notes that what is claimed at `key` could not be written.
    pub fn write_failed(&mut self, key: &Key, failure: &Failure) {
        let claims: Vec<Origin> = self.claims(key).cloned().collect();
        for origin in claims {
            if !matches!(self.troubles.get(&origin), Some(Verdict::Failed(_))) {
                self.judge(key, &origin, Verdict::Failed(failure.clone()));
            }
        }
    }

    /// Everything that link `link` selects and that is not mirrored as a whole.
    pub fn troubles(&self, link: &str) -> impl Iterator<Item = (&Origin, &Verdict)> {
        let first = Origin { link: link.to_owned(), ..Origin::default() };
        let all = self.troubles.range::<Origin, _>(first..);
        all.map(|(origin, verdict)| (&**origin, verdict)).take_while(move |(origin, _)| origin.link == link)
    }

    /// What became of everything that link `link` selects.
    pub fn counts(&self, link: &str) -> Counts {
        let mut counts =
            Counts { mirrored: self.mirrored.get(link).copied().unwrap_or_default(), ..Counts::default() };
        for (_, verdict) in self.troubles(link) {
            match verdict {
                Verdict::Mirrored | Verdict::Partly(_) => counts.mirrored += 1,
                Verdict::Failed(failure) => {
                    counts.failing += 1;
                    counts.conflicts += usize::from(failure.reason == "Conflict");
                }
                Verdict::Pending => counts.pending += 1,
            }
        }
        counts
    }
}
