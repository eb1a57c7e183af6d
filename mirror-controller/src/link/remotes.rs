//! How each link's target cluster is reached, for status and admin page.

use crate::observe::watch::Lost;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How one link's target cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteState {
    /// Whether the API of the target cluster answers; `None` until it was asked.
    pub connected: Option<bool>,
    /// Why it does not.
    pub lost: Option<Lost>,
    /// Since when it does not.
    pub since: Option<Timestamp>,
    /// Whether its exported Services were listed.
    pub listed: bool,
    /// `host:port` of its gateway, as its Service says.
    pub gateway_addresses: Vec<String>,
    /// Its API server's clock minus ours, in whole seconds.
    pub clock_skew_seconds: Option<i64>,
}

/// The state of all links' targets. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Remotes {
    states: Arc<Mutex<BTreeMap<String, RemoteState>>>,
    changed: watch::Sender<u64>,
}

impl Remotes {
    /// Changes what is known of link `link`'s target.
    pub fn change(&self, link: &str, change: impl FnOnce(&mut RemoteState)) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(link.to_owned()).or_default();
        let before = state.clone();
        change(state);
        let differs = *state != before;
        drop(states);
        if differs {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Link `link` is gone.
    pub fn forget(&self, link: &str) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).remove(link);
    }

    /// What is known of link `link`'s target.
    pub fn state(&self, link: &str) -> RemoteState {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.get(link).cloned().unwrap_or_default()
    }

    /// Counts changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
