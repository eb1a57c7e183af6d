//! What the keepers of one link's credentials share.

use crate::credentials::{CredentialsContext, board::LinkAccess, token::Account};
use jiff::Timestamp;
use kube::Client;
use linkspan_core::api::{identity::Identity, link::Link};
use tokio::sync::watch;

/// What of a Link decides about its credentials. When it changes, its keepers start anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The Link's name.
    pub name: String,
    /// The Link's uid.
    pub uid: String,
    /// The Secret with the kubeconfig.
    pub credentials_secret: String,
    /// Who the target's gateway must prove to be, or why the Link does not say.
    pub gateway: Result<Identity, String>,
}

impl LinkFacts {
    /// Reads a Link.
    pub fn of(link: &Link) -> Self {
        let name = link.metadata.name.clone().unwrap_or_default();
        let gateway = link.spec.gateway_identity.as_deref().unwrap_or_default();
        Self {
            uid: link.metadata.uid.clone().unwrap_or_default(),
            credentials_secret: link.spec.credentials_secret(&name),
            gateway: gateway.parse().map_err(|e| format!("spec.gatewayIdentity: {e}")),
            name,
        }
    }
}

/// Access to the target cluster's API that has been seen to work.
#[derive(Clone)]
pub struct Remote {
    /// The API.
    pub client: Client,
    /// As whom.
    pub account: Account,
    /// Grows with each change, as in [`LinkAccess`].
    pub generation: u64,
}

/// What the keepers of one link's credentials share. Clones share the same state.
#[derive(Clone)]
pub struct Desk {
    /// What all links share.
    pub context: CredentialsContext,
    /// The link.
    pub link: LinkFacts,
    /// Who the target's gateway must prove to be.
    pub gateway: Identity,
    remote: watch::Sender<Option<Remote>>,
}

impl Desk {
    /// A desk for `link`, whose gateway is `gateway`.
    pub fn new(context: CredentialsContext, link: LinkFacts, gateway: Identity) -> Self {
        Self { context, link, gateway, remote: watch::Sender::new(None) }
    }

    /// Follows the access to the target's API.
    pub fn remote(&self) -> watch::Receiver<Option<Remote>> {
        self.remote.subscribe()
    }

    /// Puts another client, or none, in place of the present one.
    pub fn replace_remote(&self, client: Option<(Client, Account)>) {
        let mut generation = 0;
        self.tell(|access| {
            access.replace_client(client.as_ref().map(|(client, _)| client.clone()));
            generation = access.generation;
        });
        self.remote.send_replace(client.map(|(client, account)| Remote { client, account, generation }));
    }

    /// Tells the link's followers.
    pub fn tell(&self, change: impl FnOnce(&mut LinkAccess)) {
        self.context.board.tell(&self.link.name, change);
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// Whether this replica may write.
    pub fn leads(&self) -> bool {
        *self.context.leader.borrow()
    }
}
