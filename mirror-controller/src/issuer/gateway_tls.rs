//! What the gateways' Secret and ConfigMap should hold: decided from what they hold, the CA, what is wanted for each
//! link, and the time. Pure.

use crate::issuer::{
    ca_history::CaHistory,
    certificate::{Certificate, accepted_from_server, chain},
    exchange::{Held, Wanted},
};
use jiff::{SignedDuration, Timestamp};
use linkspan_core::api::{
    credentials::{
        CA_HISTORY, CLIENT_KEY, OWN_BUNDLE, SERVER_CERT, SERVER_KEY, client_cert, link_of_client_cert,
        link_of_peer_bundle, peer_bundle,
    },
    identity::Identity,
};
use rcgen::{KeyPair, PublicKeyData};
use std::collections::BTreeMap;

/// Texts under their keys, as a Secret or ConfigMap holds them.
pub type Texts = BTreeMap<String, String>;

/// What there is and what it should match.
pub struct State<'a> {
    /// The Secret's data; what is not text is left out.
    pub secret: &'a Texts,
    /// The ConfigMap's data.
    pub trust: &'a Texts,
    /// Certificate of the CA that signs (PEM).
    pub ca: &'a str,
    /// Who the gateways are.
    pub identity: &'a Identity,
    /// What is wanted for each link.
    pub wanted: &'a Wanted,
}

/// What to do. Keys are made and certificates signed by whoever carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Make a server key and certificate, and why.
    pub server: Option<&'static str>,
    /// Make a client key; all client certificates went with the old one.
    pub client_key: bool,
    /// The Secret's keys that change: a text to put, or `None` to drop.
    pub secret: BTreeMap<String, Option<String>>,
    /// The ConfigMap's keys that change: a text to put, or `None` to drop.
    pub trust: BTreeMap<String, Option<String>>,
    /// All CAs of this cluster that are trusted (PEM).
    pub bundle: String,
    /// When the server certificate ends, where it is not made anew.
    pub server_expires_at: Option<Timestamp>,
    /// When to look again, though nothing changed.
    pub look_again: Timestamp,
}

impl Plan {
    /// Whether the Secret changes.
    pub fn changes_secret(&self) -> bool {
        self.server.is_some() || self.client_key || !self.secret.is_empty()
    }
}

/// Decides what to make, renew and drop at `now`.
pub fn desired_gateway_tls(state: &State<'_>, now: Timestamp) -> Plan {
    let history = CaHistory::read(state.secret.get(CA_HISTORY).map(String::as_str)).with(state.ca, now);
    let bundle = history.bundle();
    let server = server_certificate(state, &bundle, now);
    let client_key = state.secret.get(CLIENT_KEY).and_then(|pem| KeyPair::from_pem(pem).ok());
    let mut secret = client_certificates(state, client_key.as_ref());
    let text = history.text();
    if state.secret.get(CA_HISTORY) != Some(&text) {
        secret.insert(CA_HISTORY.to_owned(), Some(text));
    }
    let soonest = now + SignedDuration::from_secs(60);
    let renew_at = server.as_ref().map_or(soonest, |certificate| certificate.renew_at());
    Plan {
        server_expires_at: server.as_ref().ok().map(|certificate| certificate.not_after),
        server: server.err(),
        client_key: client_key.is_none(),
        secret,
        trust: trust(state, &bundle),
        look_again: history.next_end().map_or(renew_at, |end| end.min(renew_at)).max(soonest),
        bundle,
    }
}

/// The server certificate that is good, or why one has to be made now. One of a former CA is good until its own end: by
/// then linked clusters know the new CA.
fn server_certificate(state: &State<'_>, bundle: &str, now: Timestamp) -> Result<Certificate, &'static str> {
    let (Some(pem), Some(key)) = (state.secret.get(SERVER_CERT), state.secret.get(SERVER_KEY)) else {
        return Err("there is none");
    };
    let certificate = Certificate::first_of(pem).map_err(|_| "the present one cannot be read")?;
    let key = KeyPair::from_pem(key).map_err(|_| "the present key cannot be read")?;
    if key.subject_public_key_info() != certificate.public_key {
        return Err("the present one is not for the present key");
    }
    if certificate.uris != [state.identity.to_string()] {
        return Err("the present one is for another identity");
    }
    if certificate.renew_at() <= now {
        return Err("two thirds of its life are over");
    }
    if now < certificate.not_before {
        return Err("the present one is not valid yet: this machine's clock was set back");
    }
    accepted_from_server(bundle, pem, now).map_err(|_| "this cluster's CA did not sign the present one")?;
    Ok(certificate)
}

fn client_certificates(state: &State<'_>, key: Option<&KeyPair>) -> BTreeMap<String, Option<String>> {
    let mut desired = Texts::new();
    for (name, pem) in state.secret {
        let Some(link) = link_of_client_cert(name) else { continue };
        if exists(state.wanted, link) && is_for(pem, key) {
            desired.insert(name.clone(), pem.clone());
        }
    }
    for (link, peer) in &state.wanted.peers {
        if let Some(pem) = peer.certificate.as_ref().filter(|pem| is_for(pem, key)) {
            desired.insert(client_cert(link), pem.clone());
        }
    }
    changes(state.secret, &desired, |name| link_of_client_cert(name).is_some())
}

fn trust(state: &State<'_>, bundle: &str) -> BTreeMap<String, Option<String>> {
    let mut desired = Texts::from([(OWN_BUNDLE.to_owned(), bundle.to_owned())]);
    for (name, pem) in state.trust {
        if link_of_peer_bundle(name).is_some_and(|link| exists(state.wanted, link)) {
            desired.insert(name.clone(), pem.clone());
        }
    }
    for (link, peer) in &state.wanted.peers {
        if let Some(pem) = peer.bundle.as_ref().filter(|pem| chain(pem).is_ok_and(|c| !c.is_empty())) {
            desired.insert(peer_bundle(link), pem.clone());
        }
    }
    changes(state.trust, &desired, |name| name == OWN_BUNDLE || link_of_peer_bundle(name).is_some())
}

/// Whether link `link` exists, or it is not known yet which do.
fn exists(wanted: &Wanted, link: &str) -> bool {
    wanted.links.as_ref().is_none_or(|links| links.contains(link))
}

/// Whether the certificate `pem` is for `key`.
fn is_for(pem: &str, key: Option<&KeyPair>) -> bool {
    let certificate = Certificate::first_of(pem).ok();
    certificate
        .zip(key)
        .is_some_and(|(certificate, key)| certificate.public_key == key.subject_public_key_info())
}

/// How to get from `present` to `desired` among the keys that are ours; all others are left as they are.
fn changes(
    present: &Texts,
    desired: &Texts,
    is_ours: impl Fn(&str) -> bool,
) -> BTreeMap<String, Option<String>> {
    let gone = present.keys().filter(|name| is_ours(name) && !desired.contains_key(*name));
    let put = desired.iter().filter(|(name, text)| present.get(*name) != Some(*text));
    gone.map(|name| (name.clone(), None))
        .chain(put.map(|(name, text)| (name.clone(), Some(text.clone()))))
        .collect()
}

/// What the gateways hold, for whoever asks for certificates; `None` while there is no client key.
pub fn held(secret: &Texts, trust: &Texts) -> Option<Held> {
    let by_link = |texts: &Texts, link_of: fn(&str) -> Option<&str>| {
        let ours = texts.iter().filter_map(|(name, text)| Some((link_of(name)?.to_owned(), text.clone())));
        ours.collect::<BTreeMap<_, _>>()
    };
    Some(Held {
        client_key: secret.get(CLIENT_KEY)?.clone(),
        certificates: by_link(secret, link_of_client_cert),
        bundles: by_link(trust, link_of_peer_bundle),
    })
}

#[cfg(test)]
mod tests;
