//! Refuses HTTP/1 requests that two parsers could read differently, before hyper sees them. Pure.
//!
//! What is refused: lines that end in a bare LF, CR or NUL within a line, folded lines, white space around a field's
//! name, more than one Host or none in HTTP/1.1, lengths that conflict or are no plain number, a length together with a
//! transfer encoding, and any transfer encoding other than one `chunked`. It follows bodies only as far as needed to
//! know where the next head begins.

/// Longest line of a head, and longest line around chunks.
const LINE: usize = 64 * 1024;
/// Empty lines that may come before a request.
const EMPTY_LINES: u8 = 2;

/// Follows one client's bytes.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// What a head says of itself.
#[derive(Debug, Default)]
struct Facts {
    empty_lines: u8,
    old: bool,
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
}

/// A request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// So many of the bytes handed in belong to what is fine.
    pub fine: usize,
}

impl Scanner {
    /// Whether a head has begun and not yet ended.
    pub fn in_head(&self) -> bool {
        self.state == State::Fields || (self.state == State::RequestLine && !self.line.is_empty())
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When a line is refused; nothing may be handed in after that.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Body(left) | State::Chunk(left) => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += here as usize;
                    self.state = match (self.state, left - here) {
                        (State::Body(_), 0) => State::RequestLine,
                        (State::Body(_), left) => State::Body(left),
                        (_, 0) => State::ChunkEnd,
                        (_, left) => State::Chunk(left),
                    };
                }
                _ => at = self.feed_line(bytes, at).ok_or(Refused { fine: at })?,
            }
        }
        Ok(())
    }

    /// Takes in a line, or the beginning of one. Where the next begins; `None` when it is refused.
    fn feed_line(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            self.line.extend_from_slice(rest);
            return (self.line.len() <= LINE).then_some(bytes.len());
        };
        let held = std::mem::take(&mut self.line);
        let whole;
        let line = if held.is_empty() {
            &rest[..end]
        } else {
            whole = [&held[..], &rest[..end]].concat();
            &whole[..]
        };
        let line = line.strip_suffix(b"\r").filter(|l| l.len() <= LINE)?;
        if line.iter().any(|b| matches!(b, b'\r' | 0)) {
            return None;
        }
        self.take_line(line)?;
        Some(at + end + 1)
    }

    fn take_line(&mut self, line: &[u8]) -> Option<()> {
        match self.state {
            State::RequestLine if line.is_empty() => {
                self.facts.empty_lines += 1;
                return (self.facts.empty_lines <= EMPTY_LINES).then_some(());
            }
            State::RequestLine => {
                self.facts = Facts { old: line.ends_with(b" HTTP/1.0"), ..Facts::default() };
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => self.state = self.facts.body()?,
            State::Fields => self.facts.take_field(line)?,
            State::ChunkSize => self.state = chunk(line)?,
            State::ChunkEnd => {
                line.is_empty().then_some(())?;
                self.state = State::ChunkSize;
            }
            State::Trailers if line.is_empty() => self.restart(),
            State::Trailers => {
                field(line)?;
            }
            State::Body(_) | State::Chunk(_) => {}
        }
        Some(())
    }

    fn restart(&mut self) {
        self.state = State::RequestLine;
        self.facts = Facts::default();
    }
}

impl Facts {
    fn take_field(&mut self, line: &[u8]) -> Option<()> {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts = self.hosts.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
            if self.length.replace(length).is_some_and(|before| before != length) {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let again = std::mem::replace(&mut self.chunked, true);
            if again || self.old || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
        }
        Some(())
    }

    /// What follows the head.
    fn body(&mut self) -> Option<State> {
        let facts = std::mem::take(self);
        if facts.hosts > 1 || (facts.hosts == 0 && !facts.old) {
            return None;
        }
        match (facts.chunked, facts.length) {
            (true, Some(_)) => None,
            (true, None) => Some(State::ChunkSize),
            (false, None | Some(0)) => Some(State::RequestLine),
            (false, Some(length)) => Some(State::Body(length)),
        }
    }
}

/// Name and value of a field.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = &line[..colon];
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (!name.is_empty() && name.iter().all(token)).then(|| (name, line[colon + 1..].trim_ascii()))
}

/// What follows the line with a chunk's size.
fn chunk(line: &[u8]) -> Option<State> {
    let size = line.split(|b| *b == b';').next()?.trim_ascii();
    if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    Some(if size == 0 { State::Trailers } else { State::Chunk(size) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &[u8]) -> Result<(), Refused> {
        Scanner::default().feed(text)
    }

    const GOOD: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\n\nGET / HTTP/1.1\r\nhost:b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n\n\n\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\nEmpty:\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    const BAD: [&[u8]; 21] = [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    ];

    #[test]
    fn what_parsers_agree_on_passes_and_nothing_else() {
        for text in GOOD {
            assert_eq!(scan(text), Ok(()), "{:?}", String::from_utf8_lossy(text));
        }
        for text in BAD {
            assert!(scan(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_came_before_the_refused_line_is_fine() {
        let good = GOOD[0];
        let text = [good, b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: b\n\r\n"].concat();
        assert_eq!(scan(&text), Err(Refused { fine: good.len() + 25 }));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(which in 0usize..28, cuts in prop::collection::vec(1usize..9, 1..200)) {
            let text = if which < GOOD.len() { GOOD[which] } else { BAD[which - GOOD.len()] };
            let (mut scanner, mut rest, mut refused) = (Scanner::default(), text, false);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || refused { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                refused = scanner.feed(piece).is_err();
                rest = after;
            }
            prop_assert_eq!(refused, scan(text).is_err());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(Refused { fine }) = scan(&bytes) {
                prop_assert!(fine <= bytes.len());
                prop_assert_eq!(scan(&bytes[..fine]), Ok(()));
            }
        }
    }
}
