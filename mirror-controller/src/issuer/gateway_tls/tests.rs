//! What is made, renewed and dropped, with a fixed clock.

use super::*;
use crate::issuer::{
    ca::{CertificateAuthority, LEAF_LIFETIME, Leaf, Usage},
    exchange::Peer,
};
use linkspan_core::api::identity::TrustDomain;
use std::collections::BTreeSet;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-03-01T12:00:00Z";

struct World {
    ca: CertificateAuthority,
    identity: Identity,
    secret: Texts,
    trust: Texts,
    wanted: Wanted,
}

impl World {
    /// Gateways that hold all they need, with one link `west`.
    fn new() -> Self {
        let mut world = Self {
            ca: ca(),
            identity: Identity::gateway(domain(), "linkspan"),
            secret: Texts::new(),
            trust: Texts::new(),
            wanted: Wanted { links: Some(BTreeSet::from(["west".into()])), peers: BTreeMap::new() },
        };
        let (server, client) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let texts = [
            (SERVER_CERT, world.certificate(&server)),
            (SERVER_KEY, server.serialize_pem()),
            (CLIENT_KEY, client.serialize_pem()),
            ("client-west.crt", world.certificate(&client)),
        ];
        world.secret.extend(texts.map(|(key, text)| (key.to_owned(), text)));
        world.secret.insert(CA_HISTORY.into(), CaHistory::default().with(world.ca.bundle(), at(NOW)).text());
        world.trust.insert(OWN_BUNDLE.into(), world.ca.bundle().into());
        world.trust.insert("peer-west.crt".into(), ca().bundle().into());
        world.trust.insert("denied-serials".into(), "0a\n0b".into());
        world
    }

    fn certificate(&self, key: &KeyPair) -> String {
        let (identity, usage, lifetime) = (&self.identity, Usage::Server, LEAF_LIFETIME);
        let leaf = Leaf { identity, uid: None, usage, public_key: key, lifetime, serial: [3; 16] };
        self.ca.sign(&leaf, at(NOW)).unwrap()
    }

    fn plan(&self, now: &str) -> Plan {
        let state = State {
            secret: &self.secret,
            trust: &self.trust,
            ca: self.ca.bundle(),
            identity: &self.identity,
            wanted: &self.wanted,
        };
        desired_gateway_tls(&state, at(now))
    }

    fn client_key(&self) -> KeyPair {
        KeyPair::from_pem(&self.secret[CLIENT_KEY]).unwrap()
    }
}

fn domain() -> TrustDomain {
    TrustDomain::of_cluster("u1").unwrap()
}

fn ca() -> CertificateAuthority {
    let kept = CertificateAuthority::generate(&domain(), [2; 16], at(NOW)).unwrap();
    CertificateAuthority::load(&kept, &domain(), at(NOW)).unwrap()
}

#[test]
fn what_is_right_is_left_alone_until_two_thirds_of_its_life() {
    let world = World::new();
    let plan = world.plan(NOW);
    assert_eq!((plan.server, plan.client_key), (None, false));
    assert!(!plan.changes_secret() && plan.trust.is_empty());
    // 24 h and five minutes, started five minutes early: due after 16 h 3 min 20 s of its life.
    assert_eq!(plan.look_again, at("2026-03-02T03:58:20Z"));
    assert_eq!(world.plan("2026-03-02T03:58:19Z").server, None);
    assert_eq!(world.plan("2026-03-02T03:58:20Z").server, Some("two thirds of its life are over"));
}

#[test]
fn an_empty_cluster_gets_all_it_needs() {
    let mut world = World::new();
    world.secret.clear();
    world.trust.clear();
    let plan = world.plan(NOW);
    assert_eq!((plan.server, plan.client_key), (Some("there is none"), true));
    assert_eq!(plan.trust, BTreeMap::from([(OWN_BUNDLE.to_owned(), Some(world.ca.bundle().to_owned()))]));
    assert!(held(&world.secret, &world.trust).is_none(), "nobody can ask for certificates without a key");
}

#[test]
fn a_server_certificate_that_no_caller_would_take_is_made_anew() {
    let why = |change: fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.plan(NOW).server
    };
    assert_eq!(
        why(|w| w
            .secret
            .insert(SERVER_KEY.into(), KeyPair::generate().unwrap().serialize_pem())
            .map_or((), drop)),
        Some("the present one is not for the present key")
    );
    assert_eq!(
        why(|w| w.secret.insert(SERVER_CERT.into(), "x".into()).map_or((), drop)),
        Some("the present one cannot be read")
    );
    let lost = |w: &mut World| {
        w.ca = ca();
        w.secret.remove(CA_HISTORY);
    };
    assert_eq!(why(lost), Some("this cluster's CA did not sign the present one"));
    assert_eq!(
        why(|w| w.identity = Identity::gateway(domain(), "other")),
        Some("the present one is for another identity")
    );
}

#[test]
fn what_a_link_brings_is_put_and_what_a_gone_link_left_is_dropped() {
    let mut world = World::new();
    let (certificate, bundle) = (world.certificate(&world.client_key()), ca().bundle().to_owned());
    let peer = Peer { certificate: Some(certificate.clone()), bundle: Some(bundle.clone()) };
    world.wanted.peers.insert("north".into(), peer);
    world.wanted.links = Some(BTreeSet::from(["north".into()]));
    let plan = world.plan(NOW);
    let secret = [("client-north.crt", Some(certificate)), ("client-west.crt", None)];
    assert_eq!(plan.secret, secret.map(|(key, text)| (key.to_owned(), text)).into());
    let trust = [("peer-north.crt", Some(bundle)), ("peer-west.crt", None)];
    assert_eq!(plan.trust, trust.map(|(key, text)| (key.to_owned(), text)).into());
}

#[test]
fn nothing_is_dropped_before_the_links_were_listed() {
    let mut world = World::new();
    world.wanted.links = None;
    let plan = world.plan(NOW);
    assert!(plan.secret.is_empty() && plan.trust.is_empty());
}

#[test]
fn what_no_gateway_could_use_is_not_put() {
    let mut world = World::new();
    let foreign = world.certificate(&KeyPair::generate().unwrap());
    let peer = Peer { certificate: Some(foreign), bundle: Some("no certificate".into()) };
    world.wanted.peers.insert("west".into(), peer);
    let plan = world.plan(NOW);
    assert!(
        plan.secret.is_empty() && plan.trust.is_empty(),
        "{:?} {:?}",
        plan.secret.keys(),
        plan.trust.keys()
    );
}

#[test]
fn a_lost_client_key_takes_its_certificates_along() {
    let mut world = World::new();
    world.secret.insert(CLIENT_KEY.into(), KeyPair::generate().unwrap().serialize_pem());
    let plan = world.plan(NOW);
    assert!(!plan.client_key);
    assert_eq!(plan.secret, BTreeMap::from([("client-west.crt".to_owned(), None)]));
    world.secret.remove(CLIENT_KEY);
    assert!(world.plan(NOW).client_key);
}

#[test]
fn what_others_wrote_is_kept_and_what_is_ours_put_right() {
    let mut world = World::new();
    world.trust.insert(OWN_BUNDLE.into(), "tampered".into());
    world.secret.insert("note".into(), "mine".into());
    let plan = world.plan(NOW);
    assert_eq!(plan.trust.keys().collect::<Vec<_>>(), [OWN_BUNDLE], "denied-serials is the administrator's");
    assert!(plan.secret.is_empty());
    let held = held(&world.secret, &world.trust).unwrap();
    assert_eq!(held.certificates.keys().collect::<Vec<_>>(), ["west"]);
    assert_eq!(held.bundles.keys().collect::<Vec<_>>(), ["west"]);
}

#[test]
fn a_new_ca_is_told_first_and_signs_the_next_certificate() {
    let mut world = World::new();
    let former = std::mem::replace(&mut world.ca, ca());
    let both = format!("{}{}", world.ca.bundle(), former.bundle());
    let plan = world.plan("2026-03-01T13:00:00Z");
    assert_eq!(plan.server, None, "callers that know the former CA alone must still be able to call");
    assert_eq!(plan.bundle, both);
    assert_eq!(plan.trust, BTreeMap::from([(OWN_BUNDLE.to_owned(), Some(both.clone()))]));
    assert_eq!(plan.secret.keys().collect::<Vec<_>>(), [CA_HISTORY]);
    world.secret.insert(CA_HISTORY.into(), plan.secret[CA_HISTORY].clone().unwrap());
    let plan = world.plan("2026-03-02T04:00:00Z");
    assert_eq!((plan.server, plan.bundle), (Some("two thirds of its life are over"), both));
    // A day and five minutes after the change nothing lives that the former CA signed.
    assert!(world.plan("2026-03-02T13:04:59Z").bundle.contains(former.bundle()));
    assert_eq!(world.plan("2026-03-02T13:05:00Z").bundle, world.ca.bundle());
}

#[test]
fn a_clock_that_was_set_back_gets_a_certificate_that_is_valid() {
    let world = World::new();
    assert_eq!(world.plan("2026-03-01T11:55:00Z").server, None, "five minutes are tolerated");
    let why = world.plan("2026-03-01T11:54:59Z").server.unwrap();
    assert!(why.contains("clock was set back"), "{why}");
}
