//! What a command that waits says on stderr: one line per finished step; on a terminal also what it waits for.

use crate::output::{is_lively, note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;
use tokio::time::Instant;

/// Progress of one command.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<String>,
}

impl Progress {
    /// Progress on stderr.
    pub fn on_stderr() -> Self {
        let bar = is_lively(&std::io::stderr()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: None }
    }

    /// Says what is being waited for. Where nothing can move, a line is printed each time the text changes.
    pub fn waiting(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.last.as_deref() != Some(text) => note(&format!("waiting: {text}")),
            None => {}
        }
        self.last = Some(text.to_owned());
    }

    /// One line that stays.
    pub fn line(&mut self, text: &str) {
        self.last = None;
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Takes the moving part away.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// What one look at something that is waited for brought.
pub enum Look<T> {
    /// It is there.
    Done(T),
    /// Not yet, and why.
    NotYet(String),
}

/// How often things that are waited for are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks again and again until it is there. After `limit` the last look's reason comes back as the error's text; an
/// error of a look ends the waiting.
///
/// # Errors
/// The first error of a look, or that the time is over.
pub async fn wait_for<T, F>(progress: &mut Progress, limit: Duration, look: F) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> anyhow::Result<Look<T>>,
{
    wait_every(PERIOD, progress, limit, look).await
}

async fn wait_every<T, F>(
    period: Duration,
    progress: &mut Progress,
    limit: Duration,
    mut look: F,
) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> anyhow::Result<Look<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match look().await? {
            Look::Done(found) => return Ok(found),
            Look::NotYet(why) if Instant::now() + period > deadline => {
                progress.end();
                return Err(anyhow::anyhow!("{why}"));
            }
            Look::NotYet(why) => progress.waiting(&why),
        }
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_with_the_last_reason() {
        let mut looks = 0;
        let mut progress = Progress { bar: None, last: None };
        let error =
            wait_every(Duration::from_millis(40), &mut progress, Duration::from_millis(100), async || {
                looks += 1;
                Ok::<_, anyhow::Error>(Look::<()>::NotYet(format!("no address, look {looks}")))
            })
            .await
            .unwrap_err();
        assert!(looks > 1, "{looks}");
        assert_eq!(error.to_string(), format!("no address, look {looks}"));
    }

    #[tokio::test]
    async fn waiting_ends_when_it_is_there() {
        let mut looks = 0;
        let mut progress = Progress { bar: None, last: None };
        let found =
            wait_every(Duration::from_millis(1), &mut progress, Duration::from_secs(60), async || {
                looks += 1;
                Ok(if looks == 3 { Look::Done(looks) } else { Look::NotYet("soon".into()) })
            });
        assert_eq!(found.await.unwrap(), 3);
    }
}
