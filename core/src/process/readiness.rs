//! Whether a process can serve: each part that must come up first holds a handle until it has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What a process still waits for.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

/// One part's share of the process's readiness.
#[derive(Debug)]
pub struct Handle {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Registers a part that is not ready yet; `why` says what it waits for.
    pub fn register(&self, name: &'static str, why: &str) -> Handle {
        let handle = Handle { readiness: self.clone(), name };
        handle.pending(why);
        handle
    }

    /// What is waited for: the part and what it waits for. Empty when all can serve.
    pub fn pending(&self) -> Vec<(&'static str, String)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(name, why)| Some((*name, why.clone()?))).collect()
    }
}

impl Handle {
    /// This part can serve.
    pub fn ready(&self) {
        self.set(None);
    }

    /// This part cannot serve, or not any more; `why` says what it waits for.
    pub fn pending(&self, why: &str) {
        self.set(Some(why.to_owned()));
    }

    fn set(&self, state: Option<String>) {
        self.readiness.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_part_waits_for_what() {
        let readiness = Readiness::default();
        let tls = readiness.register("tls", "no Secret yet");
        let watch = readiness.register("services", "first list");
        watch.ready();
        assert_eq!(readiness.pending(), [("tls", "no Secret yet".to_owned())]);
        tls.ready();
        assert!(readiness.pending().is_empty());
        tls.pending("Secret is gone");
        assert_eq!(readiness.pending(), [("tls", "Secret is gone".to_owned())]);
    }
}
