//! A bound on what one place in the code may log, so that a flood of one event neither fills disks nor hides others.

use crate::process::clock::Clock;
use serde_json::json;
use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tracing::{Level, Metadata, callsite::Identifier};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that one place may write in one [`WINDOW`]; lines of level debug and below are not limited.
const LINES: u32 = 50;
/// Time after which a place may write again.
const WINDOW: Duration = Duration::from_secs(10);

/// Writes what `inner` writes, within the bound. What was left out is counted in the next line of the same place.
pub(super) struct Limited<W> {
    inner: W,
    json: bool,
    places: Arc<Mutex<HashMap<Identifier, Place>>>,
}

/// What one place has written lately.
struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// What becomes of one line.
enum Verdict {
    Write,
    LeaveOut,
    /// As many were left out since the last line.
    WriteAfter(u64),
}

impl<W> Limited<W> {
    pub(super) fn new(inner: W, json: bool) -> Self {
        Self { inner, json, places: Arc::default() }
    }

    fn verdict(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { since: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(place.since) >= WINDOW {
            place.since = now;
            place.lines = 1;
            return match std::mem::take(&mut place.left_out) {
                0 => Verdict::Write,
                count => Verdict::WriteAfter(count),
            };
        }
        place.lines += 1;
        if place.lines <= LINES {
            return Verdict::Write;
        }
        place.left_out += 1;
        Verdict::LeaveOut
    }

    fn remark(&self, count: u64, meta: &Metadata<'_>) -> String {
        let (now, message) =
            (Clock::system().now(), format!("{count} lines like the next one were left out"));
        let (level, target) = (meta.level(), meta.target());
        if self.json {
            let line =
                json!({"timestamp": now, "level": level.as_str(), "message": message, "target": target});
            format!("{line}\n")
        } else {
            format!("{now} {level:>5} {target}: {message}\n")
        }
    }
}

/// Writes one line, or nothing.
pub(super) enum Line<W> {
    Written(W),
    LeftOut,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Written(writer) => writer.write(bytes),
            Self::LeftOut => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Written(writer) => writer.flush(),
            Self::LeftOut => Ok(()),
        }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Limited<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line::Written(self.inner.make_writer())
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let limited = *meta.level() <= Level::INFO;
        let verdict = if limited { self.verdict(meta.callsite(), Instant::now()) } else { Verdict::Write };
        let mut writer = match verdict {
            Verdict::LeaveOut => return Line::LeftOut,
            Verdict::Write | Verdict::WriteAfter(_) => self.inner.make_writer_for(meta),
        };
        if let Verdict::WriteAfter(count) = verdict {
            // Where the line itself cannot be written, nobody is told of this either.
            let _ = writer.write_all(self.remark(count, meta).as_bytes());
        }
        Line::Written(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::MutexGuard;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        fn text(&self) -> String {
            let bytes: MutexGuard<'_, Vec<u8>> = self.0.lock().unwrap();
            String::from_utf8(bytes.clone()).unwrap()
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn flood(lines: usize) {
        for n in 0..lines {
            tracing::warn!(n, "a port cannot be bound");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_bounded_and_told_and_hides_no_other_line() {
        for json in [false, true] {
            let buffer = Buffer::default();
            let out = buffer.clone();
            let limited = Limited::new(move || out.clone(), json);
            let builder = tracing_subscriber::fmt().with_writer(limited).with_ansi(false);
            let _guard = if json {
                tracing::subscriber::set_default(builder.json().flatten_event(true).finish())
            } else {
                tracing::subscriber::set_default(builder.finish())
            };
            flood(1000);
            tracing::info!("another place");
            let text = buffer.text();
            assert_eq!(text.matches("cannot be bound").count(), 50, "{text}");
            assert!(text.contains("another place"));
            tokio::time::advance(WINDOW).await;
            flood(1);
            let text = buffer.text();
            assert!(text.contains("950 lines like the next one were left out"), "{text}");
            assert_eq!(text.matches("cannot be bound").count(), 51);
            if json {
                assert!(
                    text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
                    "{text}"
                );
            }
        }
    }
}
