//! One kind of object, as far as it is known.

use kube::ResourceExt;
use std::collections::BTreeMap;

/// One kind of object, and whether it was listed completely.
#[derive(Clone, Debug)]
pub struct Listed<K, V> {
    /// What is known.
    pub items: BTreeMap<K, V>,
    /// Whether it was listed completely since this process started.
    pub synced: bool,
}

impl<K, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), synced: false }
    }
}

impl<K: Ord + Clone, V: ResourceExt + PartialEq> Listed<K, V> {
    /// `listed` is all there is. Returns what changed, each with what was known before.
    pub fn reset(&mut self, listed: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Option<V>)> {
        self.synced = true;
        let mut old = std::mem::take(&mut self.items);
        let mut changed = Vec::new();
        for (key, object) in listed {
            let before = old.remove(&key);
            if before.as_ref() != Some(&object) {
                changed.push((key.clone(), before));
            }
            self.items.insert(key, object);
        }
        changed.extend(old.into_iter().map(|(key, before)| (key, Some(before))));
        changed
    }

    /// `object` is there. Returns what was known before, or nothing when this is no news: our own writes come back
    /// by the watch, and an older state may arrive after a newer one.
    pub fn seen(&mut self, key: K, object: V) -> Option<Option<V>> {
        if let Some(known) = self.items.get(&key)
            && (*known == object || is_older(&object, known))
        {
            return None;
        }
        Some(self.items.insert(key, object))
    }

    /// `object` is gone. Returns what was known, or nothing when another object stands under its name by now.
    pub fn gone(&mut self, key: &K, object: &V) -> Option<V> {
        let known = self.items.get(key)?;
        if known.uid() != object.uid() || is_older(object, known) {
            return None;
        }
        self.items.remove(key)
    }
}

/// Whether `a` is an older state than `b`. Resource versions of one kind are decimal numbers that grow.
fn is_older(a: &impl ResourceExt, b: &impl ResourceExt) -> bool {
    let version = |v: Option<String>| v.and_then(|v| v.parse::<u64>().ok());
    match (version(a.resource_version()), version(b.resource_version())) {
        (Some(a), Some(b)) => a < b,
        _ => false,
    }
}
