//! Waiting for a condition, with a deadline and the last state seen.

use std::{fmt::Display, panic::Location, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(100);

/// Asks `look` until it answers `Ok`, and returns that answer. `what` says what is waited for, e.g. `"the mirror
/// Service to appear"`.
///
/// # Panics
/// When `deadline` passes first; the text has what the last look saw.
#[track_caller]
pub fn eventually<T>(
    deadline: Duration,
    what: impl Display,
    look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match until(deadline, look).await {
            Ok(answer) => answer,
            Err(last) => panic!("{caller}: waited {deadline:?} for {what}; last seen: {last:#}"),
        }
    }
}

/// Asks `look` until it answers `Ok`.
///
/// # Errors
/// The last look's error, when `deadline` passes first.
pub async fn until<T>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut last = anyhow::anyhow!("no look was finished");
    loop {
        match timeout_at(end, look()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last),
        }
        if Instant::now() + POLL >= end {
            return Err(last);
        }
        sleep(POLL).await;
    }
}

/// Asks `look` again and again for `time`: what must not happen does not happen.
///
/// # Panics
/// When one look answers `Err`.
#[track_caller]
pub fn throughout(
    time: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> anyhow::Result<()>,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Err(error) = look().await {
                panic!("{caller}: {what} must hold for {time:?}, but: {error:#}");
            }
            sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_ok_is_the_answer() {
        let mut looks = 0;
        let answer = eventually(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            anyhow::ensure!(looks == 3, "only {looks}");
            Ok(looks)
        });
        assert_eq!(answer.await, 3);
    }

    #[tokio::test]
    async fn a_deadline_tells_what_was_seen_last() {
        let mut looks = 0;
        let error = until::<()>(Duration::from_secs(1), async || {
            looks += 1;
            anyhow::bail!("look {looks}")
        })
        .await
        .unwrap_err();
        let seen: u32 = error.to_string().strip_prefix("look ").unwrap().parse().unwrap();
        assert!((2..=10).contains(&seen), "{seen} looks in a second");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_hold_up_the_deadline() {
        let error =
            until::<()>(Duration::from_millis(300), async || std::future::pending().await).await.unwrap_err();
        assert_eq!(error.to_string(), "no look was finished");
    }

    #[tokio::test]
    #[should_panic(expected = "peace must hold for 1s, but: war")]
    async fn a_breach_is_told() {
        throughout(Duration::from_secs(1), "peace", async || anyhow::bail!("war")).await;
    }
}
