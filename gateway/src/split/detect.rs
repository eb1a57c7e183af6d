//! What a client speaks, by its first bytes. Pure.

/// Longest request line that is waited for.
pub const LONGEST: usize = 8 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// An HTTP/1 request line.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Neither.
    Opaque,
    /// The beginning of either; more is needed.
    More,
}

/// What `bytes`, the first of a connection, are. Never [`Spoken::More`] beyond [`LONGEST`].
pub fn detect(bytes: &[u8]) -> Spoken {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return if common == PREFACE.len() { Spoken::Http2 } else { Spoken::More };
    }
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let method = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    // Methods are capitals; anything else is not waited for.
    if method == 0 || method > 20 || !line[..method].iter().all(u8::is_ascii_uppercase) {
        return Spoken::Opaque;
    }
    match end {
        Some(_) => {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let spoken = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
            if spoken { Spoken::Http1 } else { Spoken::Opaque }
        }
        None if bytes.len() >= LONGEST || line.iter().any(|b| *b < b' ' && *b != b'\r') => Spoken::Opaque,
        None => Spoken::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_is_told_from_what_looks_like_it() {
        for (bytes, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Spoken::Http1),
            (b"PURGE /x HTTP/1.0\r\nHost: a\r\n", Spoken::Http1),
            (b"GET /", Spoken::More),
            (b"G", Spoken::More),
            (b"", Spoken::More),
            (PREFACE, Spoken::Http2),
            (b"PRI * HT", Spoken::More),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Spoken::Opaque),
            (b"GET key\r\n", Spoken::Opaque),
            (b"EHLO me\r\n", Spoken::Opaque),
            (b"\x16\x03\x01\x02\x00", Spoken::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Spoken::Opaque),
            (b"SSH-2.0-x\r\n", Spoken::Opaque),
            (b"get / HTTP/1.1\r\n", Spoken::Opaque),
            (b"GET \x00", Spoken::Opaque),
        ] {
            assert_eq!(detect(bytes), spoken, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_waited_for_endlessly_and_more_changes_no_verdict(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..64) {
            let early = detect(&bytes[..cut.min(bytes.len())]);
            if early != Spoken::More {
                prop_assert_eq!(early, detect(&bytes));
            }
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let endless = [b"GET /".to_vec(), vec![b'a'; LONGEST]].concat();
        assert_eq!(detect(&endless), Spoken::Opaque);
    }
}
