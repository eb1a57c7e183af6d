//! A value that one task changes and many read, with a notice of each change.

use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;

/// A table together with a count of its changes.
#[derive(Debug, Default)]
pub struct Shared<T> {
    value: RwLock<T>,
    changes: watch::Sender<u64>,
}

impl<T> Shared<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        Self { value: RwLock::new(value), changes: watch::Sender::new(0) }
    }

    /// Asks the table something; `question` must be quick, the table is locked meanwhile.
    pub fn read<A>(&self, question: impl FnOnce(&T) -> A) -> A {
        question(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the table; readers are told when `change` says that this changed anything.
    pub fn update(&self, change: impl FnOnce(&mut T) -> bool) {
        let changed = change(&mut self.value.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Tells of changes from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
