//! What became of one Service that a Link selects.

use linkspan_core::api::condition::Condition;

/// Why a Service is not mirrored, or not as a whole: a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word.
    pub reason: &'static str,
    /// What is wrong, why, and what mends it.
    pub message: String,
}

impl Failure {
    /// `reason`, told as `message`.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What became of one Service that a Link selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Pending,
    /// Its mirror stands.
    Mirrored,
    /// Its mirror stands, with something left out.
    Partly(Failure),
    /// It has no mirror.
    Failed(Failure),
}

impl Verdict {
    /// The condition that tells it, for what is worth telling.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Self::Pending | Self::Mirrored => None,
            Self::Partly(f) => Some(Condition::yes("Mirrored", f.reason, &f.message)),
            Self::Failed(f) => Some(Condition::no("Mirrored", f.reason, &f.message)),
        }
    }
}
