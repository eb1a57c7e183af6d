//! What is known of each link's credentials, for whoever follows one link.

use kube::Client;
use linkspan_core::api::condition::Condition;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Type of the condition that a Link's credentials give.
pub const CREDENTIALS_VALID: &str = "CredentialsValid";

/// How far one link's credentials reach.
#[derive(Clone)]
pub struct LinkAccess {
    /// The target cluster's API by credentials that have been seen to work; replaced only by others that work.
    pub client: Option<Client>,
    /// Grows with each new `client`, so that a follower can tell that it was replaced.
    pub generation: u64,
    /// Condition `CredentialsValid` of the Link, not yet dated.
    pub condition: Condition,
    /// When the token for the target's API ends; `None` when there is none or it does not end.
    pub token_expires_at: Option<jiff::Timestamp>,
    /// When the client certificate that the gateways hold for this link ends.
    pub certificate_expires_at: Option<jiff::Timestamp>,
}

impl Default for LinkAccess {
    fn default() -> Self {
        let message = "the credentials of this Link have not been read yet";
        Self {
            client: None,
            generation: 0,
            condition: Condition::unknown(CREDENTIALS_VALID, "Pending", message),
            token_expires_at: None,
            certificate_expires_at: None,
        }
    }
}

/// One channel per link. Clones share the same channels.
#[derive(Clone, Default)]
pub struct AccessBoard(Arc<Mutex<BTreeMap<String, watch::Sender<LinkAccess>>>>);

impl AccessBoard {
    /// Follows link `link`, whether or not anything is known of it yet.
    pub fn subscribe(&self, link: &str) -> watch::Receiver<LinkAccess> {
        self.sender(link).subscribe()
    }

    /// Where news of link `link` go.
    pub(super) fn sender(&self, link: &str) -> watch::Sender<LinkAccess> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(link.to_owned()).or_default().clone()
    }

    /// Link `link` is gone: its followers are told that nothing is known, and its channel goes once none follows.
    pub(super) fn forget(&self, link: &str) {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = links.get(link) {
            sender.send_replace(LinkAccess::default());
        }
        links.retain(|name, sender| name != link || sender.receiver_count() > 0);
    }
}
