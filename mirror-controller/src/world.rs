//! The one snapshot that all watches write and the reconciler reads, and how they wake each other.

use crate::{observe::watch::Lost, snapshot::Snapshot};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// The shared snapshot.
#[derive(Debug)]
pub struct World {
    snapshot: Mutex<Snapshot>,
    dirty: Notify,
    changed: watch::Sender<u64>,
}

impl Default for World {
    fn default() -> Self {
        Self { snapshot: Mutex::default(), dirty: Notify::new(), changed: watch::channel(0).0 }
    }
}

impl World {
    /// Changes the snapshot, and wakes whoever the change matters to. Never held over a wait.
    pub fn change<R>(&self, change: impl FnOnce(&mut Snapshot) -> R) -> R {
        let mut snapshot = self.lock();
        let result = change(&mut snapshot);
        let dirty = snapshot.is_dirty();
        drop(snapshot);
        if dirty {
            self.dirty.notify_one();
        }
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// `what` of this cluster is watched, or why not.
    pub fn watched(&self, what: &'static str, lost: Option<Lost>) {
        let known = self.read(|s| s.lost.get(what) == lost.as_ref());
        if known {
            return;
        }
        match &lost {
            Some(lost) => {
                let (reason, error) = (lost.reason, &lost.message);
                tracing::warn!(reason, error, "{what} cannot be watched; trying again");
            }
            None => tracing::info!("{what} are watched again"),
        }
        self.change(|s| match lost {
            Some(lost) => s.lost.insert(what, lost),
            None => s.lost.remove(what),
        });
    }

    /// Wakes the reconciler if a name must be decided anew.
    pub fn wake(&self) {
        if self.lock().is_dirty() {
            self.dirty.notify_one();
        }
    }

    /// Reads the snapshot.
    pub fn read<R>(&self, read: impl FnOnce(&Snapshot) -> R) -> R {
        read(&self.lock())
    }

    /// Completes when a name must be decided anew.
    pub async fn dirty(&self) {
        self.dirty.notified().await;
    }

    /// Counts changes: whoever shows the snapshot looks again when it moved.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
