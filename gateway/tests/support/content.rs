//! Bytes that tell where they belong: each position of a stream has its own.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes sent or checked at once.
const BLOCK: usize = 256 * 1024;

/// Fills `bytes` with what stream `seed` has from position `at` on.
fn fill(seed: u64, at: usize, bytes: &mut [u8]) {
    for (position, byte) in (at..).zip(bytes) {
        let word = (position as u64 / 8 + 1)
            .wrapping_mul(seed.wrapping_mul(2) | 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = (word ^ (word >> 31)).to_le_bytes()[position % 8];
    }
}

/// Sends stream `seed` from position `from` up to `to`.
pub(crate) async fn send_part(
    to: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    from: usize,
    until: usize,
) -> io::Result<()> {
    let mut bytes = vec![0; BLOCK.min(until - from)];
    let mut at = from;
    while at < until {
        let count = BLOCK.min(until - at);
        fill(seed, at, &mut bytes[..count]);
        to.write_all(&bytes[..count]).await?;
        at += count;
    }
    Ok(())
}

/// Sends all of stream `seed`, which is `total` bytes long, and its end.
pub(crate) async fn send_content(mut to: impl AsyncWrite + Unpin, seed: u64, total: usize) {
    send_part(&mut to, seed, 0, total).await.unwrap();
    to.shutdown().await.unwrap();
}

/// Reads stream `seed` up to its end, or until `most` bytes have come. How many bytes came, and whether the stream
/// ended in order.
///
/// # Panics
/// When a byte is not the one that belongs there.
pub(crate) async fn check_prefix(
    from: &mut (impl AsyncRead + Unpin),
    seed: u64,
    most: usize,
) -> (usize, bool) {
    let (mut found, mut expected, mut at) = (vec![0; BLOCK], vec![0; BLOCK], 0);
    while at < most {
        let Ok(count) = from.read(&mut found).await else { return (at, false) };
        if count == 0 {
            return (at, true);
        }
        fill(seed, at, &mut expected[..count]);
        assert!(found[..count] == expected[..count], "stream {seed} differs between {at} and {}", at + count);
        at += count;
    }
    (at, false)
}

/// Reads all of stream `seed`, which must be `total` bytes long and end in order.
pub(crate) async fn check_content(mut from: impl AsyncRead + Unpin, seed: u64, total: usize) {
    assert_eq!(check_prefix(&mut from, seed, usize::MAX).await, (total, true));
}
