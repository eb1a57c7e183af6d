//! A running process that ends with the test.

use crate::{artifacts, program::wait_for, scratch::Scratch};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

/// Time a process has to end by itself after SIGTERM, unless a test says otherwise.
pub const STOP: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when a test fails; the whole is kept in the test's artifacts.
const SHOWN: usize = 40;

/// A running process. It is killed and reaped on drop; if that happens because the test failed, its log is kept and
/// the log's end is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _scratch: Scratch,
}

impl Process {
    pub(crate) fn new(name: &str, child: Child, log: PathBuf, scratch: Scratch) -> Self {
        Self { name: name.to_owned(), child, log, _scratch: scratch }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, to standard output and standard error.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Fails unless it runs.
    ///
    /// # Errors
    /// When it has ended: how, and the end of its log.
    pub fn running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}):\n{}", self.name, self.tail()),
        }
    }

    /// Sends it a signal, e.g. `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        self.running()?;
        let script = r#"kill -s "$0" "$1""#;
        let status = Command::new("sh").args(["-c", script, signal, &self.pid().to_string()]).status();
        match status.context("cannot run sh")?.success() {
            true => Ok(()),
            false => bail!("cannot send {signal} to {} ({})", self.name, self.pid()),
        }
    }

    /// Asks it to end and waits for that; kills it when `within` has passed.
    ///
    /// # Errors
    /// When it had ended before, or had to be killed.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        if let Some(status) = wait_for(&mut self.child, within)? {
            return Ok(status);
        }
        self.kill()?;
        bail!("{} had not ended {within:?} after SIGTERM:\n{}", self.name, self.tail())
    }

    /// Ends it by SIGKILL and reaps it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.with_context(|| format!("cannot kill {} ({})", self.name, self.pid()))
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
        if std::thread::panicking() {
            let kept = artifacts::keep(&format!("{}.log", self.name), &self.log());
            eprintln!("--- {} (the last lines; all of it: {kept})\n{}", self.name, self.tail());
        }
    }
}
