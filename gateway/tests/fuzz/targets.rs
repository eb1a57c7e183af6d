//! What is fuzzed: every parser of bytes that others write. Each target takes any bytes and panics when a promise is
//! broken. The test program beside this file runs them by itself (`linkspan_tests::fuzz`); `make fuzz` runs them under
//! libFuzzer.

use bytes::BytesMut;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::{
    credentials::normal_serial, duration::parse_duration, identity::Identity, link::Link, names::Target,
    pod::Pod,
};
use linkspan_gateway::{
    http::strict::Scanner,
    ingress::caller::Caller,
    mtls::{
        credentials::{Credentials, Texts},
        peer,
    },
    source::{file, rows},
    tunnel::tls::{Outgoing, Tls},
    wire::{Decoder, Event, Frame, WireError},
};
use rcgen::{CertificateParams, KeyPair, SanType};
use std::{collections::BTreeMap, path::Path, sync::OnceLock};

/// A name and what is done with bytes.
pub(crate) type Fuzz = (&'static str, fn(&[u8]));

/// All of them; each has a folder of inputs in `corpus/`.
pub(crate) const TARGETS: [Fuzz; 10] = [
    ("frames", frames),
    ("open", open),
    ("baggage", baggage),
    ("certificate", certificate),
    ("identity", identity),
    ("target", target),
    ("config", config),
    ("objects", objects),
    ("handshake", handshake),
    ("requests", requests),
];

fn decode(bytes: &[u8], cut: usize) -> (Vec<Event>, Option<WireError>) {
    let (mut decoder, mut waiting, mut events) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        waiting.extend_from_slice(piece);
        let mut rest = &waiting[..];
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(piece)) => events.push(Event::from(piece)),
                Ok(None) => break,
                Err(e) => return (events, Some(e)),
            }
        }
        waiting = rest.to_vec();
    }
    (events, None)
}

/// The data of neighbouring pieces as one: where they are cut is not promised.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for event in events {
        match (all.last_mut(), event) {
            (Some(Event::Data(before)), Event::Data(more)) => {
                *before = [&before[..], &more[..]].concat().into();
            }
            (_, event) => all.push(event),
        }
    }
    all
}

/// Frames are found whatever pieces they arrive in, and those that are found can be written again.
fn frames(bytes: &[u8]) {
    let (whole, error) = decode(bytes, usize::MAX);
    let (pieces, error_of_pieces) = decode(bytes, 7);
    assert_eq!((joined(pieces), error_of_pieces), (joined(whole.clone()), error));
    for event in whole {
        if let Event::Frame(frame) = event {
            let mut out = BytesMut::new();
            frame.encode(&mut out).expect("what was read can be written");
            assert_eq!(decode(&out, usize::MAX), (vec![Event::Frame(frame)], None));
        }
    }
}

/// OPEN's fields: what is let in as a target is one, and nothing in the baggage reaches the log but plain names.
fn open(bytes: &[u8]) {
    let mut frame = (bytes.len().min(0xff_ffff) as u32).to_be_bytes().to_vec();
    frame[0] = 1;
    frame.extend_from_slice(bytes);
    for event in decode(&frame, usize::MAX).0 {
        if let Event::Frame(Frame::Open(open)) = event {
            target(open.target.to_string().as_bytes());
            baggage(open.baggage.as_bytes());
        }
    }
}

fn baggage(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let caller = Caller::parse(&text);
    let shown = caller.to_string();
    assert!(shown.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && shown.len() < 1100, "{shown:?}");
    let members = [
        ("k8s.cluster.uid", &caller.cluster),
        ("k8s.namespace.name", &caller.namespace),
        ("k8s.serviceaccount.name", &caller.service_account),
        ("k8s.pod.name", &caller.pod),
    ];
    let known = members.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    assert_eq!(Caller::parse(&known.collect::<Vec<_>>().join(",")), caller);
}

/// A certificate names exactly one identity in the one way to write it, and a serial number in the one way.
fn certificate(bytes: &[u8]) {
    if let Ok(peer) = peer::read(bytes) {
        identity(peer.identity.to_string().as_bytes());
        assert_eq!(normal_serial(&peer.serial), peer.serial);
    }
}

fn identity(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
        assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?}");
    }
}

fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(target) = text.parse::<Target>() {
        assert_eq!(target.to_string(), text);
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
        assert!(text.bytes().all(plain) && target.port > 0, "{text:?}");
    }
}

/// A file is taken, or refused with a line that it has.
fn config(bytes: &[u8]) {
    if let Err(error) = file::check(Path::new("gateway.yaml"), bytes) {
        let text = error.to_string();
        assert!(text.starts_with("gateway.yaml: "), "{text}");
        if let file::FileError::Value { line, .. } = error {
            assert!(line >= 1 && line <= bytes.split(|b| *b == b'\n').count(), "{text}");
        }
    }
}

/// What others may write into objects of the API: Links, slices, Services, pods.
fn objects(bytes: &[u8]) {
    if let Ok(link) = serde_json::from_slice::<Link>(bytes)
        && let Ok(row) = rows::link(&link)
    {
        assert!(row.endpoints.iter().all(|(host, port)| !host.is_empty() && *port > 0), "{row:?}");
        assert!(!row.probe.timeout.is_zero() && row.probe.failure_threshold > 0, "{row:?}");
    }
    if let Ok(slice) = serde_json::from_slice::<EndpointSlice>(bytes) {
        rows::endpoint_slice(&slice);
        if let Ok(row) = rows::our_slice(&slice) {
            row.route.ports.values().for_each(|t| target(t.to_string().as_bytes()));
        }
    }
    if let Ok(service) = serde_json::from_slice::<Service>(bytes) {
        rows::service(&service);
    }
    if let Ok(pod) = serde_json::from_slice::<Pod>(bytes) {
        rows::pod(&pod);
    }
    parse_duration(&String::from_utf8_lossy(bytes));
}

/// What a stranger sends before it has proved who it is: never established, and no plaintext comes of it.
fn handshake(bytes: &[u8]) {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
    let credentials = CREDENTIALS.get_or_init(credentials);
    let server = credentials.server.as_ref().expect("a server");
    let mut tls = Tls::server(server.config.clone()).expect("a configuration");
    let (mut plain, mut out) = (Vec::new(), Outgoing::default());
    if let Ok(opened) = tls.open(&mut bytes.to_vec(), &mut plain, &mut out) {
        assert!(!opened.established && opened.consumed <= bytes.len());
    }
    assert!(plain.is_empty());
}

fn credentials() -> Credentials {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    let uri = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway";
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let text = |text: &str| text.to_owned();
    Credentials::read(&Texts {
        secret: Some(BTreeMap::from([
            (text("server.crt"), pem.clone().into_bytes()),
            (text("server.key"), key.serialize_pem().into_bytes()),
        ])),
        trust: Some(BTreeMap::from([(text("own-bundle.crt"), pem)])),
    })
}

/// Requests of a client: what is refused does not depend on how the bytes arrive.
fn requests(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut cut) = (Scanner::default(), Scanner::default());
    let verdict = whole.feed(bytes);
    if let Err(refused) = &verdict {
        assert!(refused.fine <= bytes.len());
    }
    let in_pieces = bytes.chunks(usize::from(*size).max(1)).try_for_each(|piece| cut.feed(piece));
    assert_eq!(verdict.is_ok(), in_pieces.is_ok());
    if verdict.is_ok() {
        assert_eq!(whole.in_head(), cut.in_head());
    }
}
