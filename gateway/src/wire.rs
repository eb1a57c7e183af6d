//! The bytes between two gateways. No IO here: values in, bytes out, and back.
//!
//! Inside a TLS connection whose ALPN is [`ALPN`], both sides write frames: a header of four bytes (8 bits kind,
//! 24 bits length, big-endian), then that many bytes. A connection carries one flow at a time:
//!
//! ```text
//! caller                          called
//! OPEN(generation, target) DATA.. ->
//!                                 <- OPENED | REFUSED(reason) DONE
//! DATA.. FIN                     <-> DATA.. FIN
//!                                 <- DONE      all of the flow was delivered; the connection is free again
//! RESET                          <->           the flow ends now; the called side still answers DONE
//! ```
//!
//! A caller that waits for nothing says in OPEN that OPENED may wait for what is sent next.
//!
//! After DONE the caller sends nothing more of that flow, and the called side skips what is still under way up to
//! the next OPEN. Each flow has a generation, counted up by the caller, so that a late frame hits no other flow.
//! PING may be sent at any time and is answered by PONG with the called gateway's identity. After GOAWAY the caller
//! opens no new flow on this connection; the called side still serves one that was under way.
//!
//! Each side's first frame is HELLO: what it can do beyond this. One that has announced [`TELLS_PAUSES`] sends PAUSED
//! once it has read nothing of the connection for a second because its plain side takes nothing, again each second,
//! and RESUMED when it reads again: until then unacknowledged bytes do not mean that it is gone, its silence does.
//!
//! What makes it evolvable:
//! * the ALPN names the version: two versions can be offered side by side;
//! * unknown kinds below 128 are skipped; unknown kinds from 128 on end the connection. A new kind that may be
//!   ignored takes a number below, one that must be understood a number from 128 on;
//! * frames may be longer than what is known of them: the rest is ignored. OPEN's fields carry tag and length,
//!   unknown tags are skipped;
//! * reasons are codes that are never reused; an unknown one reads as `internal`.

mod decoder;

pub use decoder::Decoder;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use linkspan_core::api::{names::Target, reason::Reason};

/// The protocol and its version, as negotiated in the TLS handshake.
pub const ALPN: &[u8] = b"linkspan/1";
/// Bytes before each frame's content.
pub const HEADER: usize = 4;
/// Longest OPEN, and longest frame of any other kind that is read as a whole.
pub const MAX_CONTROL: usize = 16 * 1024;
/// Longest DATA that fits the header.
pub const MAX_DATA: usize = (1 << 24) - 1;

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const FIN: u8 = 5;
const RESET: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;
const GOAWAY: u8 = 9;
const DONE: u8 = 10;
const HELLO: u8 = 11;
const PAUSED: u8 = 12;
const RESUMED: u8 = 13;
/// Unknown kinds from this one on end the connection; those below are skipped.
const CRITICAL: u8 = 128;

/// In HELLO: the sender tells when it stops reading.
pub const TELLS_PAUSES: u32 = 1;

const TAG_TARGET: u8 = 1;
const TAG_BAGGAGE: u8 = 2;
const TAG_OPENED_MAY_WAIT: u8 = 3;

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Number of the flow on its connection.
    pub generation: u32,
    /// How many links this flow crosses, this one included.
    pub hops: u8,
    /// Where it wants to go.
    pub target: Target,
    /// Who calls, in the form of W3C baggage; empty when unknown.
    pub baggage: String,
    /// Whether OPENED may be sent with the first thing that follows it, and not before: who waits for nothing is spared a
    /// packet.
    pub opened_may_wait: bool,
}

/// A frame other than DATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Begins a flow.
    Open(Open),
    /// The flow's target is connected.
    Opened {
        /// Which flow.
        generation: u32,
    },
    /// The flow is not carried.
    Refused {
        /// Which flow; 0 refuses the caller as such.
        generation: u32,
        /// Why.
        reason: Reason,
    },
    /// The sender sends no more bytes of this flow.
    Fin {
        /// Which flow.
        generation: u32,
    },
    /// The flow ends at once.
    Reset {
        /// Which flow.
        generation: u32,
        /// Why.
        reason: Reason,
    },
    /// Asks whether the peer is there.
    Ping {
        /// Repeated in the answer.
        token: u64,
    },
    /// Answers PING.
    Pong {
        /// That of the PING.
        token: u64,
        /// Who answers: a SPIFFE URI.
        identity: String,
    },
    /// No new flows on this connection, please.
    GoAway,
    /// The called side is through with the flow.
    Done {
        /// Which flow.
        generation: u32,
    },
    /// What the sender can do beyond the first version.
    Hello {
        /// One bit each.
        features: u32,
    },
    /// The sender reads nothing of this flow at the moment.
    Paused {
        /// Which flow.
        generation: u32,
    },
    /// The sender reads again.
    Resumed {
        /// Which flow.
        generation: u32,
    },
}

/// What a [`Decoder`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A piece of a DATA frame; pieces need not be whole frames.
    Data(&'a [u8]),
    /// Any other frame.
    Frame(Frame),
}

/// A [`Piece`] of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of a DATA frame.
    Data(Bytes),
    /// Any other frame.
    Frame(Frame),
}

impl From<Piece<'_>> for Event {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Data(bytes) => Event::Data(Bytes::copy_from_slice(bytes)),
            Piece::Frame(frame) => Event::Frame(frame),
        }
    }
}

/// Bytes that no peer of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame that is read as a whole is too long.
    #[error("frame of kind {kind} has {length} bytes, at most {MAX_CONTROL} are allowed")]
    TooLong {
        /// The frame's kind.
        kind: u8,
        /// Its announced length.
        length: usize,
    },
    /// A frame ends within a field, or a field cannot be read.
    #[error("frame of kind {0} is malformed")]
    Malformed(u8),
    /// A kind that must be understood, and is not.
    #[error("frame of kind {0} is unknown and may not be ignored")]
    Unknown(u8),
}

impl From<WireError> for std::io::Error {
    fn from(error: WireError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// The header of a DATA frame of `length` bytes, at most [`MAX_DATA`].
pub fn data_header(length: usize) -> [u8; HEADER] {
    header(DATA, length.min(MAX_DATA))
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    [kind, a, b, c]
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// When it is longer than any peer reads; then `out` is as before.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        let start = out.len();
        out.put_bytes(0, HEADER);
        let kind = self.encode_body(out);
        let length = out.len() - start - HEADER;
        if length > MAX_CONTROL {
            out.truncate(start);
            return Err(WireError::TooLong { kind, length });
        }
        out[start..start + HEADER].copy_from_slice(&header(kind, length));
        Ok(())
    }

    /// Which flow the frame belongs to; `None` for those that belong to none.
    pub fn generation(&self) -> Option<u32> {
        match self {
            Frame::Open(open) => Some(open.generation),
            Frame::Opened { generation }
            | Frame::Refused { generation, .. }
            | Frame::Fin { generation }
            | Frame::Reset { generation, .. }
            | Frame::Done { generation }
            | Frame::Paused { generation }
            | Frame::Resumed { generation } => Some(*generation),
            Frame::Ping { .. } | Frame::Pong { .. } | Frame::GoAway | Frame::Hello { .. } => None,
        }
    }

    fn encode_body(&self, out: &mut BytesMut) -> u8 {
        match self {
            Frame::Open(open) => {
                out.put_u32(open.generation);
                out.put_u8(open.hops);
                put_field(out, TAG_TARGET, &open.target.to_string());
                put_field(out, TAG_BAGGAGE, &open.baggage);
                if open.opened_may_wait {
                    put_field(out, TAG_OPENED_MAY_WAIT, "");
                }
                OPEN
            }
            Frame::Opened { generation } => {
                out.put_u32(*generation);
                OPENED
            }
            Frame::Refused { generation, reason } => {
                out.put_u32(*generation);
                out.put_u8(reason.code());
                REFUSED
            }
            Frame::Fin { generation } => {
                out.put_u32(*generation);
                FIN
            }
            Frame::Reset { generation, reason } => {
                out.put_u32(*generation);
                out.put_u8(reason.code());
                RESET
            }
            Frame::Ping { token } => {
                out.put_u64(*token);
                PING
            }
            Frame::Pong { token, identity } => {
                out.put_u64(*token);
                out.put_slice(identity.as_bytes());
                PONG
            }
            Frame::GoAway => GOAWAY,
            Frame::Done { generation } => {
                out.put_u32(*generation);
                DONE
            }
            Frame::Hello { features } => {
                out.put_u32(*features);
                HELLO
            }
            Frame::Paused { generation } => {
                out.put_u32(*generation);
                PAUSED
            }
            Frame::Resumed { generation } => {
                out.put_u32(*generation);
                RESUMED
            }
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Frame, WireError> {
        read_body(kind, body).ok_or(WireError::Malformed(kind))
    }
}

/// Reads the body of a frame of a known kind; `None` when it ends too early or a field cannot be read.
fn read_body(kind: u8, mut body: &[u8]) -> Option<Frame> {
    let generation = |body: &mut &[u8]| body.try_get_u32().ok();
    let reason = |body: &mut &[u8]| body.try_get_u8().ok().map(Reason::from_code);
    Some(match kind {
        OPEN => Frame::Open(read_open(body)?),
        OPENED => Frame::Opened { generation: generation(&mut body)? },
        REFUSED => Frame::Refused { generation: generation(&mut body)?, reason: reason(&mut body)? },
        FIN => Frame::Fin { generation: generation(&mut body)? },
        RESET => Frame::Reset { generation: generation(&mut body)?, reason: reason(&mut body)? },
        PING => Frame::Ping { token: body.try_get_u64().ok()? },
        PONG => Frame::Pong {
            token: body.try_get_u64().ok()?,
            identity: std::str::from_utf8(body).ok()?.to_owned(),
        },
        GOAWAY => Frame::GoAway,
        DONE => Frame::Done { generation: generation(&mut body)? },
        HELLO => Frame::Hello { features: body.try_get_u32().ok()? },
        PAUSED => Frame::Paused { generation: generation(&mut body)? },
        RESUMED => Frame::Resumed { generation: generation(&mut body)? },
        _ => return None,
    })
}

/// Appends one field of OPEN. One that does not fit its length is cut; the frame is too long then anyway.
fn put_field(out: &mut BytesMut, tag: u8, value: &str) {
    out.put_u8(tag);
    out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    out.put_slice(value.as_bytes());
}

fn read_open(mut body: &[u8]) -> Option<Open> {
    let (generation, hops) = (body.try_get_u32().ok()?, body.try_get_u8().ok()?);
    let (mut target, mut baggage, mut opened_may_wait) = (None, String::new(), false);
    while body.has_remaining() {
        let (tag, length) = (body.try_get_u8().ok()?, usize::from(body.try_get_u16().ok()?));
        let value;
        (value, body) = body.split_at_checked(length)?;
        match tag {
            TAG_TARGET => target = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            TAG_BAGGAGE => baggage = std::str::from_utf8(value).ok()?.to_owned(),
            TAG_OPENED_MAY_WAIT => opened_may_wait = true,
            _ => {}
        }
    }
    Some(Open { generation, hops, target: target?, baggage, opened_may_wait })
}

#[cfg(test)]
mod tests;
