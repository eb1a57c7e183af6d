//! Round trips, rules for what is unknown, and bytes of an attacker.

use super::*;
use proptest::prelude::*;

fn decode_all(bytes: &[u8]) -> Result<Vec<Event>, WireError> {
    let (mut decoder, mut rest, mut events) = (Decoder::default(), bytes, Vec::new());
    while let Some(piece) = decoder.next(&mut rest)? {
        events.push(Event::from(piece));
    }
    Ok(events)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let reason = || (0..Reason::ALL.len()).prop_map(|i| Reason::ALL[i]);
    let label = "[a-z]([a-z0-9-]{0,10}[a-z0-9])?";
    let target = (proptest::option::of(label), label, label, 1u16..)
        .prop_map(|(host, service, namespace, port)| Target { host, service, namespace, port });
    prop_oneof![
        (any::<u32>(), any::<u8>(), target, ".{0,200}", any::<bool>()).prop_map(
            |(generation, hops, target, baggage, opened_may_wait)| {
                Frame::Open(Open { generation, hops, target, baggage, opened_may_wait })
            }
        ),
        any::<u32>().prop_map(|generation| Frame::Opened { generation }),
        (any::<u32>(), reason()).prop_map(|(generation, reason)| Frame::Refused { generation, reason }),
        any::<u32>().prop_map(|generation| Frame::Fin { generation }),
        (any::<u32>(), reason()).prop_map(|(generation, reason)| Frame::Reset { generation, reason }),
        any::<u64>().prop_map(|token| Frame::Ping { token }),
        (any::<u64>(), ".{0,100}").prop_map(|(token, identity)| Frame::Pong { token, identity }),
        Just(Frame::GoAway),
        any::<u32>().prop_map(|generation| Frame::Done { generation }),
        any::<u32>().prop_map(|features| Frame::Hello { features }),
        any::<u32>().prop_map(|generation| Frame::Paused { generation }),
        any::<u32>().prop_map(|generation| Frame::Resumed { generation }),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_back_however_they_are_cut(frames in prop::collection::vec(any_frame(), 0..6), cut in 1usize..64) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut bytes).unwrap();
        }
        let (mut decoder, mut buffer, mut found) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(cut) {
            buffer.extend_from_slice(piece);
            let mut rest = &buffer[..];
            while let Some(Piece::Frame(frame)) = decoder.next(&mut rest).unwrap() {
                found.push(frame);
            }
            buffer.drain(..buffer.len() - rest.len());
        }
        prop_assert_eq!(found, frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_all(&bytes);
    }

    #[test]
    fn arbitrary_bodies_of_known_kinds_never_panic(kind in 1u8..16, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = header(kind, body.len()).to_vec();
        bytes.extend(body);
        let _ = decode_all(&bytes);
    }

    #[test]
    fn data_keeps_its_content(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5)) {
        let mut bytes = Vec::new();
        for piece in &pieces {
            bytes.extend(data_header(piece.len()));
            bytes.extend(piece);
        }
        let found: Vec<u8> = decode_all(&bytes).unwrap().into_iter().flat_map(|event| match event {
            Event::Data(data) => data.to_vec(),
            Event::Frame(frame) => panic!("{frame:?}"),
        }).collect();
        prop_assert_eq!(found, pieces.concat());
    }
}

#[test]
fn unknown_kinds_are_skipped_below_128_and_refused_above() {
    let mut bytes = header(77, 3).to_vec();
    bytes.extend(b"new");
    bytes.extend(header(GOAWAY, 0));
    assert_eq!(decode_all(&bytes), Ok(vec![Event::Frame(Frame::GoAway)]));
    assert_eq!(decode_all(&header(200, 0)), Err(WireError::Unknown(200)));
}

#[test]
fn what_a_newer_peer_adds_is_ignored() {
    let mut bytes = BytesMut::new();
    let target = "my-api.default:80".parse().unwrap();
    let open = Open { generation: 7, hops: 1, target, baggage: String::new(), opened_may_wait: false };
    Frame::Open(open.clone()).encode(&mut bytes).unwrap();
    bytes.extend_from_slice(&[99, 0, 2, 1, 2]);
    let length = bytes.len() - HEADER;
    bytes[..HEADER].copy_from_slice(&header(OPEN, length));
    bytes.extend_from_slice(&header(FIN, 6));
    bytes.extend_from_slice(&[0, 0, 0, 7, 1, 2]);
    let expected = vec![Event::Frame(Frame::Open(open)), Event::Frame(Frame::Fin { generation: 7 })];
    assert_eq!(decode_all(&bytes), Ok(expected));
}

#[test]
fn an_oversized_open_is_neither_read_nor_written() {
    let length = MAX_CONTROL + 1;
    assert_eq!(decode_all(&header(OPEN, length)), Err(WireError::TooLong { kind: OPEN, length }));
    let (target, baggage) = ("a.b:1".parse().unwrap(), "x".repeat(MAX_CONTROL));
    let open = Open { generation: 1, hops: 1, target, baggage, opened_may_wait: true };
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(Frame::Open(open).encode(&mut out), Err(WireError::TooLong { .. })));
    assert_eq!(&out[..], b"before");
}
