//! The payload: bytes that tell by their position whether any are lost, doubled or in the wrong order.

use std::sync::OnceLock;

/// After so many bytes it repeats: a prime, so that no buffer size divides it.
const PERIOD: usize = 65_521;
/// Longest piece that is given or checked at once.
pub(crate) const PIECE: usize = 256 * 1024;

fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        period.iter().copied().cycle().take(PERIOD + PIECE).collect()
    })
}

/// The payload's bytes from `offset` on, at most [`PIECE`].
pub(crate) fn piece(offset: u64, length: usize) -> &'static [u8] {
    let from = (offset % PERIOD as u64) as usize;
    &bytes()[from..from + length.min(PIECE)]
}

/// Whether `received` is what stands at `offset`.
pub(crate) fn is(offset: u64, received: &[u8]) -> bool {
    received == piece(offset, received.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_piece_is_noticed() {
        assert!(is(100_000, piece(100_000, 5000)));
        assert!(!is(100_001, piece(100_000, 5000)));
        assert!(is(PERIOD as u64 - 3, piece(PERIOD as u64 - 3, PIECE)));
    }
}
