//! What is known of each link's credentials, for whoever follows one link.

use crate::credentials::finding::Findings;
use jiff::SignedDuration;
use kube::Client;
use linkspan_core::api::condition::Condition;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// How far one link's credentials reach.
#[derive(Clone)]
pub struct LinkAccess {
    /// The target cluster's API by credentials that have been seen to work; replaced only by others that work, and
    /// `None` before the first and once the token has ended.
    pub client: Option<Client>,
    /// Grows with each change of `client`, so that a follower can tell that it was replaced.
    pub generation: u64,
    /// Condition `CredentialsValid` of the Link, not yet dated.
    pub condition: Condition,
    /// When the token for the target's API ends; `None` when there is none or it does not end.
    pub token_expires_at: Option<jiff::Timestamp>,
    /// When the client certificate that the gateways hold for this link ends.
    pub certificate_expires_at: Option<jiff::Timestamp>,
    /// How far the target's clock was ahead of ours when it last signed or gave a token; negative where it was behind.
    pub target_is_ahead: Option<SignedDuration>,
    /// How often the client certificate was asked for in vain.
    pub certificate_failures: u64,
    /// How often the token was renewed in vain.
    pub token_failures: u64,
    pub(super) findings: Findings,
}

impl Default for LinkAccess {
    fn default() -> Self {
        let findings = Findings::default();
        Self {
            client: None,
            generation: 0,
            condition: findings.condition(),
            token_expires_at: None,
            certificate_expires_at: None,
            target_is_ahead: None,
            certificate_failures: 0,
            token_failures: 0,
            findings,
        }
    }
}

impl LinkAccess {
    /// Puts another client, or none, in place.
    pub(super) fn replace_client(&mut self, client: Option<Client>) {
        self.client = client;
        self.generation += 1;
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

    /// Changes what is known of link `link`; its followers wake only when something differs.
    pub(super) fn tell(&self, link: &str, change: impl FnOnce(&mut LinkAccess)) {
        self.sender(link).send_if_modified(|access| {
            let facts = |access: &LinkAccess| {
                (
                    access.generation,
                    access.condition.clone(),
                    access.token_expires_at,
                    access.certificate_expires_at,
                )
            };
            let before = facts(access);
            change(access);
            access.condition = access.findings.condition();
            facts(access) != before
        });
    }

    fn sender(&self, link: &str) -> watch::Sender<LinkAccess> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(link.to_owned()).or_default().clone()
    }

    /// Link `link` is gone: its followers are told that nothing is known, and its channel goes once none follows.
    pub(super) fn forget(&self, link: &str) {
        self.tell(link, |access| {
            let generation = access.generation + 1;
            *access = LinkAccess { generation, ..LinkAccess::default() };
        });
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|name, sender| name != link || sender.receiver_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::finding::Finding;

    #[test]
    fn followers_wake_for_news_only() {
        let board = AccessBoard::default();
        let mut west = board.subscribe("west");
        board.tell("west", |access| access.findings.bundle = Finding::Fine);
        assert!(!west.has_changed().unwrap(), "the condition says the same");
        board.tell("west", |access| access.findings.access = Finding::Wrong("TokenExpired", "late".into()));
        assert_eq!(west.borrow_and_update().condition.reason, "TokenExpired");
        board.tell("east", |access| access.replace_client(None));
        assert!(!west.has_changed().unwrap());
        board.forget("west");
        assert_eq!(west.borrow_and_update().condition.status, "Unknown");
        board.tell("west", |access| access.replace_client(None));
        assert_eq!(west.borrow().generation, 2, "a Link of the same name goes on in the same channel");
    }
}
