//! What a load client says, one JSON object a line on its standard output.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The client began, and servers count it by this name.
    CountedAs(String),
    /// What a second brought.
    Second(Second),
    /// A request that got no whole answer, or a wrong one.
    Failure(Failure),
    /// A long-lived connection that was ended by the other side.
    Cut(Cut),
}

/// Requests that ended within one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// When it ended, in milliseconds since 1970.
    pub at: i64,
    /// Requests that were answered.
    pub ok: u64,
    /// Requests that were not.
    pub failed: u64,
    /// The slowest answer, in milliseconds.
    pub slowest: u64,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// When it began, in milliseconds since 1970.
    pub began: i64,
    /// How long it took to fail, in milliseconds.
    pub took: i64,
    /// What was going on: `connect`, `send`, `head` or `body`.
    pub phase: String,
    /// Whether its connection had carried requests before.
    pub reused: bool,
    /// Why.
    pub error: String,
}

impl Failure {
    /// When it was known, in milliseconds since 1970.
    pub fn ended(&self) -> i64 {
        self.began + self.took
    }
}

/// The end of a long-lived connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// How old the connection was, in milliseconds.
    pub age: i64,
    /// How.
    pub error: String,
}

/// What one client did in some time.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The name by which servers count the client; of the whole of its output alone.
    pub counted_as: Option<String>,
    /// The seconds.
    pub seconds: Vec<Second>,
    /// What failed. A client tells at most [`TOLD_PER_SECOND`] a second; [`Second::failed`] counts all.
    pub failures: Vec<Failure>,
    /// Long-lived connections that ended.
    pub cuts: Vec<Cut>,
}

/// Failures that a client tells in one second; more are only counted.
pub const TOLD_PER_SECOND: u64 = 50;

impl Report {
    /// Reads a client's output from `since` (milliseconds since 1970) on. What is no JSON object is for people.
    ///
    /// # Errors
    /// When a line is no report.
    pub fn read(output: &str, since: i64) -> Result<Self> {
        let mut report = Self::default();
        for text in output.lines().filter(|line| line.starts_with('{')) {
            match serde_json::from_str(text).with_context(|| format!("{text:?} is no report"))? {
                Line::CountedAs(name) => report.counted_as = Some(name),
                Line::Second(second) if second.at >= since => report.seconds.push(second),
                Line::Failure(failure) if failure.ended() >= since => report.failures.push(failure),
                Line::Cut(cut) if cut.at >= since => report.cuts.push(cut),
                _ => {}
            }
        }
        Ok(report)
    }

    /// Requests that were answered.
    pub fn ok(&self) -> u64 {
        self.seconds.iter().map(|s| s.ok).sum()
    }

    /// Requests that were not.
    pub fn failed(&self) -> u64 {
        self.seconds.iter().map(|s| s.failed).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_a_time_on() {
        let second = |at| Line::Second(Second { at, ok: 7, failed: 1, slowest: 3 });
        let failure = Failure {
            began: 900,
            took: 150,
            phase: "connect".to_owned(),
            reused: false,
            error: "refused".to_owned(),
        };
        let lines = [second(1000), Line::Failure(failure.clone()), second(2000)];
        let text: String = lines.iter().map(|l| serde_json::to_string(l).unwrap() + "\n").collect();
        let report = Report::read(&text, 1001).unwrap();
        assert_eq!((report.ok(), report.failed(), report.failures), (7, 1, vec![failure]));
        assert!(Report::read("{}\n", 0).is_err());
    }
}
