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
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

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
    reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
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
        (self.0.reload)(filter(level)?)?;
        level.clone_into(&mut self.0.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Starts logging to standard error. `level` is a level for what is ours (libraries tell at most what they hold for
/// information), or a filter in `tracing`'s form, taken as it is (`info,linkspan_gateway=debug`).
///
/// # Errors
/// When `level` cannot be read, in one sentence.
pub fn init(level: &str, format: LogFormat) -> Result<LogLevel, String> {
    Ok(start(level, filter(level)?, format, std::io::stderr))
}

fn start<W>(level: &str, filter: EnvFilter, format: LogFormat, writer: W) -> LogLevel
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let writer = limit::Limited::new(writer, format == LogFormat::Json);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // An error of `try_init` means that a test has set a subscriber before; the first one stays.
    let reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = match format {
        LogFormat::Plain => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
    };
    LogLevel(Arc::new(Inner { current: Mutex::new(level.to_owned()), reload }))
}
