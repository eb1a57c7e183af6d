//! What the issuer and the keepers of links' credentials tell each other: the issuer alone writes the gateways' key
//! material, the keepers bring certificates and bundles of linked clusters.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// Both directions, each holding the newest value only. Clones share the same values.
#[derive(Clone, Default)]
pub struct Exchange {
    wanted: watch::Sender<Wanted>,
    held: watch::Sender<Option<Held>>,
    validity: watch::Sender<Validity>,
}

/// When this cluster's own certificates end; known to the replica that leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// The CA's.
    pub ca: Option<Timestamp>,
    /// The gateways' server certificate.
    pub server: Option<Timestamp>,
}

/// What the gateways should hold for each link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All Links there are; `None` until they were listed, and nothing is dropped before that.
    pub links: Option<BTreeSet<String>>,
    /// What is known of each link; a link that is absent keeps what the gateways hold.
    pub peers: BTreeMap<String, Peer>,
}

/// What the gateways should hold for one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Client certificate chain (PEM); `None` keeps what the gateways hold.
    pub certificate: Option<String>,
    /// CA bundle of the cluster behind the link (PEM); `None` keeps what the gateways hold.
    pub bundle: Option<String>,
}

/// What the gateways hold now.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The private key of all client certificates (PEM). Never logged: this type prints nothing.
    pub client_key: String,
    /// Client certificate chain (PEM) of each link.
    pub certificates: BTreeMap<String, String>,
    /// CA bundle (PEM) of the cluster behind each link.
    pub bundles: BTreeMap<String, String>,
}

impl Exchange {
    /// Follows what the gateways should hold.
    pub fn wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// Follows what the gateways hold; `None` until it was read.
    pub fn held(&self) -> watch::Receiver<Option<Held>> {
        self.held.subscribe()
    }

    /// Changes what the gateways should hold; followers wake only when it differs.
    pub fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.clone();
            change(wanted);
            *wanted != before
        });
    }

    /// Tells what the gateways hold.
    pub fn hold(&self, held: Held) {
        self.held.send_if_modified(|before| {
            let differs = before.as_ref() != Some(&held);
            *before = Some(held);
            differs
        });
    }

    /// When this cluster's own certificates end.
    pub fn validity(&self) -> Validity {
        *self.validity.borrow()
    }

    /// Tells when this cluster's own certificates end.
    pub fn valid(&self, validity: Validity) {
        self.validity.send_replace(validity);
    }
}
