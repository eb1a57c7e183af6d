//! What a channel has received, handed out piece by piece without a copy.

use crate::wire::{Decoder, Frame, Piece};
use std::io;

/// What the other side has said of itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Said {
    /// It wants no new flows on this connection.
    pub(super) leaving: bool,
    /// What it can do beyond the first version.
    pub(super) features: u32,
}

/// What has been received, piece by piece.
pub struct Pieces<'a> {
    pub(super) decoder: &'a mut Decoder,
    pub(super) bytes: &'a [u8],
    pub(super) said: &'a mut Said,
    /// Whether all whole pieces were asked for.
    pub(super) exhausted: bool,
}

impl<'a> Pieces<'a> {
    /// The next frame or piece of data; `None` when more has to come first. What is not asked for is kept.
    ///
    /// # Errors
    /// When the other side speaks something else.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and what is left stays")]
    pub fn next(&mut self) -> io::Result<Option<Piece<'a>>> {
        let piece = self.decoder.next(&mut self.bytes)?;
        match piece {
            None => self.exhausted = true,
            Some(Piece::Frame(Frame::GoAway)) => self.said.leaving = true,
            Some(Piece::Frame(Frame::Hello { features })) => self.said.features = features,
            _ => {}
        }
        Ok(piece)
    }
}
