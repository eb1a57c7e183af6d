//! Names that must be decided anew, in the order of their turns. Pure.
//!
//! Names at which a Service stands go before those at which one is still to be made: somebody may be using them. Of both
//! those that came first go first, so that names which change all the time keep no other waiting; and one turn in four
//! is for a new one, so that these come to be whatever happens to the others.

use crate::snapshot::Key;
use std::collections::{BTreeMap, HashMap};

/// One turn in so many is for a new name, where both kinds wait.
const NEW: u64 = 4;

/// All names that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    standing: Queue,
    new: Queue,
    turns: u64,
}

impl Backlog {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.standing.order.len() + self.new.order.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `key` waits from now on, if it does not already; `stands`: a Service stands there.
    pub(super) fn add(&mut self, key: Key, stands: bool) {
        if stands {
            self.new.remove(&key);
            self.standing.add(key);
        } else if !self.standing.places.contains_key(&key) {
            self.new.add(key);
        }
    }

    /// Whose turn it is; it waits no longer.
    pub(super) fn next(&mut self) -> Option<Key> {
        self.turns = self.turns.wrapping_add(1);
        let (first, second) = if self.turns.is_multiple_of(NEW) {
            (&mut self.new, &mut self.standing)
        } else {
            (&mut self.standing, &mut self.new)
        };
        first.next().or_else(|| second.next())
    }
}

/// Each name once, the oldest first.
#[derive(Clone, Debug, Default)]
struct Queue {
    order: BTreeMap<u64, Key>,
    places: HashMap<Key, u64>,
    added: u64,
}

impl Queue {
    fn add(&mut self, key: Key) {
        if !self.places.contains_key(&key) {
            self.added += 1;
            self.order.insert(self.added, key.clone());
            self.places.insert(key, self.added);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    fn next(&mut self) -> Option<Key> {
        let (_, key) = self.order.pop_first()?;
        self.places.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn all(backlog: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.next()).map(|key| key.name).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_each_goes_once() {
        let mut backlog = Backlog::default();
        for name in ["z", "a", "m", "a"] {
            backlog.add(key(name), true);
        }
        assert_eq!(backlog.len(), 3);
        assert_eq!(backlog.next(), Some(key("z")));
        backlog.add(key("z"), true);
        assert_eq!(all(&mut backlog), ["a", "m", "z"], "one that comes back waits for the others");
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_stands_goes_first_and_what_is_new_has_one_turn_in_four() {
        let mut backlog = Backlog::default();
        for n in 0..6 {
            backlog.add(key(&format!("new-{n}")), false);
        }
        for n in 0..6 {
            backlog.add(key(&format!("old-{n}")), true);
        }
        let order = all(&mut backlog);
        assert_eq!(order[..8], ["old-0", "old-1", "old-2", "new-0", "old-3", "old-4", "old-5", "new-1"]);
    }

    #[test]
    fn a_name_that_came_to_stand_goes_with_those_that_do() {
        let mut backlog = Backlog::default();
        backlog.add(key("other"), false);
        backlog.add(key("made"), false);
        backlog.add(key("made"), true);
        backlog.add(key("made"), false);
        assert_eq!(all(&mut backlog), ["made", "other"]);
    }

    proptest! {
        /// Whatever is added and taken in whatever order, what waits is what was added and not taken since.
        #[test]
        fn nothing_is_lost_or_doubled(steps in prop::collection::vec((0u8..8, any::<bool>(), any::<bool>()), 0..100)) {
            let mut backlog = Backlog::default();
            let mut waiting = BTreeSet::new();
            for (name, stands, take) in steps {
                if take {
                    let taken = backlog.next();
                    prop_assert_eq!(taken.is_none(), waiting.is_empty());
                    prop_assert!(taken.is_none_or(|key| waiting.remove(&key.name)));
                } else {
                    backlog.add(key(&name.to_string()), stands);
                    waiting.insert(name.to_string());
                }
                prop_assert_eq!(backlog.len(), waiting.len());
            }
            prop_assert_eq!(all(&mut backlog).into_iter().collect::<BTreeSet<_>>(), waiting);
        }
    }
}
