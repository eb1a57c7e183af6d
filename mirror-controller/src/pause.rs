//! The wait between two attempts, taken.

use linkspan_core::process::backoff::Backoff;

/// Waits as long as `backoff` says.
pub(crate) async fn pause(backoff: &mut Backoff) {
    let wait = backoff.wait(&mut rand::rng());
    tokio::time::sleep(wait).await;
}
