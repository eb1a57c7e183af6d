//! What `check` judges: functions from what was seen to verdicts with advice. Pure.

pub mod links;
pub mod pre;
pub mod render;
pub mod system;

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

fn problem(found: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem { found: found.into(), advice: advice.into() }
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
