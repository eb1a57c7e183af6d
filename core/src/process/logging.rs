//! Logs on standard error: one line per event, as text or JSON; no place in the code may flood them, and libraries
//! tell no details unless a filter asks them.

mod levels;
mod limit;

use levels::filter;
use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{self as lines, MakeWriter},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// For programs: one JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err(format!("log format {text:?} is unknown: use plain or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}

/// What is logged at the moment; can be changed while the process runs.
#[derive(Clone)]
pub struct LogLevel(Arc<Inner>);

struct Inner {
    current: Mutex<String>,
    filter: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.current()).finish()
    }
}

impl LogLevel {
    /// The level or filter in force.
    pub fn current(&self) -> String {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by `level` from now on, as in [`init`].
    ///
    /// # Errors
    /// When `level` cannot be read, in one sentence; then nothing changes.
    pub fn set(&self, level: &str) -> Result<(), String> {
        self.0.filter.reload(filter(level)?).map_err(|e| e.to_string())?;
        level.clone_into(&mut self.0.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Starts logging to standard error. `level` is a level for what is ours (libraries tell at most what they hold for
/// information), or levels by target, taken as they are (`info,linkspan_gateway=debug`).
///
/// # Errors
/// When `level` cannot be read, in one sentence.
pub fn init(level: &str, format: LogFormat) -> Result<LogLevel, String> {
    Ok(start(level, filter(level)?, format, std::io::stderr))
}

fn start<W>(level: &str, filter: Targets, format: LogFormat, writer: W) -> LogLevel
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let writer = limit::Limited::new(writer, format == LogFormat::Json);
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = lines::layer().with_writer(writer).with_ansi(false);
    // An error means that a test has set a subscriber before; the first one stays.
    let _ = match format {
        LogFormat::Plain => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    LogLevel(Arc::new(Inner { current: Mutex::new(level.to_owned()), filter: handle }))
}
