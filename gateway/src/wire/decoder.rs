//! Finds frames in bytes that arrive in pieces; DATA is handed on piece by piece, without a copy.

use super::{CRITICAL, DATA, Frame, HEADER, MAX_CONTROL, OPEN, Piece, RESUMED, WireError};

/// Finds frames in a stream of bytes that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    data_left: usize,
    skip_left: usize,
}

impl Decoder {
    /// Takes the next piece off the front of `bytes`; `None` when more bytes are needed: what is left then must
    /// come again, in front of them.
    ///
    /// # Errors
    /// When the bytes are no frames; the connection cannot go on then.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, WireError> {
        loop {
            if self.skip_left > 0 {
                self.skip_left -= take(bytes, self.skip_left).len();
            }
            if self.data_left > 0 && !bytes.is_empty() {
                let piece = take(bytes, self.data_left);
                self.data_left -= piece.len();
                return Ok(Some(Piece::Data(piece)));
            }
            let Some((&[kind, a, b, c], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            match kind {
                DATA => (*bytes, self.data_left) = (rest, length),
                OPEN..=RESUMED => {
                    if length > MAX_CONTROL {
                        return Err(WireError::TooLong { kind, length });
                    }
                    let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
                    *bytes = rest;
                    return Frame::decode(kind, body).map(|frame| Some(Piece::Frame(frame)));
                }
                CRITICAL.. => return Err(WireError::Unknown(kind)),
                _ => (*bytes, self.skip_left) = (rest, length),
            }
        }
    }
}

/// Takes at most `most` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let taken;
    (taken, *bytes) = bytes.split_at(most.min(bytes.len()));
    taken
}
