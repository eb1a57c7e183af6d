//! One kind of object, as far as it is known.

use crate::snapshot::standing::State;
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

impl<K: Ord + Clone, V: AsRef<State> + PartialEq> Listed<K, V> {
    /// `listed` is all there is. Returns the names of what changed.
    pub fn reset(&mut self, listed: impl IntoIterator<Item = (K, V)>) -> Vec<K> {
        self.synced = true;
        let mut old = std::mem::take(&mut self.items);
        let mut changed = Vec::new();
        for (key, object) in listed {
            if old.remove(&key).as_ref() != Some(&object) {
                changed.push(key.clone());
            }
            self.items.insert(key, object);
        }
        changed.extend(old.into_keys());
        changed
    }

    /// `object` is there. Whether that is news: our own writes come back by the watch, and an older state may arrive
    /// after a newer one.
    pub fn seen(&mut self, key: K, object: V) -> bool {
        if let Some(known) = self.items.get(&key)
            && (*known == object || object.as_ref().is_older(known.as_ref()))
        {
            return false;
        }
        self.items.insert(key, object);
        true
    }

    /// The object `key` was deleted in this last `state`. Whether that is news: another object may stand under its
    /// name by now.
    pub fn gone(&mut self, key: &K, state: &State) -> bool {
        let gone = self.items.get(key).is_some_and(|known| {
            let known = known.as_ref();
            known.uid == state.uid && !state.is_older(known)
        });
        gone && self.items.remove(key).is_some()
    }
}
