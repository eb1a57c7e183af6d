//! What `check` judges: functions from what was seen to verdicts with advice. Pure.

mod clocks;
pub mod links;
mod mirrors;
mod path;
pub mod pre;
pub mod render;
mod rights;
pub mod system;
#[cfg(test)]
mod testing;

use crate::observe::installation::Installation;

/// Checks of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// Its heading.
    pub name: &'static str,
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is true when all is well.
    pub description: String,
    /// What was found.
    pub verdict: Verdict,
}

/// What a check found. What does not apply has no check at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well; names of what was looked at.
    Well(Vec<String>),
    /// Something that works, but should not stay so.
    Warning(Problem),
    /// Not yet; it may come by itself.
    Pending(Problem),
    /// Something is wrong.
    Wrong(Problem),
}

/// What is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was found, a line per thing.
    pub found: String,
    /// What to do.
    pub advice: String,
}

impl Check {
    /// A check that found all well.
    pub fn well(description: impl Into<String>, seen: Vec<String>) -> Self {
        Self { description: description.into(), verdict: Verdict::Well(seen) }
    }

    /// A check that found something wrong.
    pub fn wrong(
        description: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { description: description.into(), verdict: Verdict::Wrong(problem(found, advice)) }
    }

    /// A check whose thing is not there yet.
    pub fn pending(
        description: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { description: description.into(), verdict: Verdict::Pending(problem(found, advice)) }
    }

    /// A check that found something to put right some day.
    pub fn warning(
        description: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { description: description.into(), verdict: Verdict::Warning(problem(found, advice)) }
    }

    /// Whether it failed, for now or for good.
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong(_) | Verdict::Pending(_))
    }
}

/// Most lines that a check lists: a cluster may have thousands of Services.
const LISTED: usize = 20;

/// `* <line>` for each, as far as a reader can take them in.
fn listed(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().map(|line| format!("* {line}")).collect();
    if lines.len() > LISTED {
        let more = lines.len() - LISTED;
        lines.truncate(LISTED);
        lines.push(format!("... and {more} more"));
    }
    lines
}

/// A check of many things: well if none of them is named in `wrong`.
fn none_wrong(
    description: &str,
    seen: impl IntoIterator<Item = String>,
    wrong: impl IntoIterator<Item = String>,
    advice: impl Into<String>,
) -> Check {
    let wrong = listed(wrong);
    if wrong.is_empty() {
        return Check::well(description, listed(seen));
    }
    Check::wrong(description, wrong.join("\n"), advice)
}

/// As [`none_wrong`], of what works although it should not stay so.
fn none_dubious(
    description: &str,
    seen: impl IntoIterator<Item = String>,
    dubious: impl IntoIterator<Item = String>,
    advice: impl Into<String>,
) -> Check {
    let dubious = listed(dubious);
    if dubious.is_empty() {
        return Check::well(description, listed(seen));
    }
    Check::warning(description, dubious.join("\n"), advice)
}

/// A check of what could not be read.
fn unknown(description: &str, error: &str) -> Check {
    let advice = if error.contains("not allowed") {
        "ask for the right to read this"
    } else {
        "try again; of a slow API server, with a longer --request-timeout"
    };
    Check::wrong(description, error, advice)
}

fn problem(found: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem { found: found.into(), advice: advice.into() }
}

/// All checks of an installation; where the API does not answer, only that is said.
pub fn of_installation(seen: &Installation) -> Vec<Category> {
    let api = system::api(&seen.api_version);
    if seen.api_version.is_err() {
        return vec![api];
    }
    let all = [api, system::system(seen), links::links(seen)];
    all.into_iter().filter(|category| !category.checks.is_empty()).collect()
}

/// Whether nothing failed.
pub fn all_well(categories: &[Category]) -> bool {
    !categories.iter().flat_map(|category| &category.checks).any(Check::failed)
}

/// Whether waiting could help: something is pending, and nothing before it is wrong for good.
pub fn may_come(categories: &[Category]) -> bool {
    let mut failed = categories.iter().flat_map(|category| &category.checks).filter(|check| check.failed());
    failed.next().is_some_and(|first| matches!(first.verdict, Verdict::Pending(_)))
}
