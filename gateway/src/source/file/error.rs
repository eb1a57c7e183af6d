//! Why a file cannot be used.

use crate::source::file::locate::{Step, line};
use std::{fmt::Write, io, path::PathBuf};

/// Why a file cannot be used: one sentence that names the file, the line and the cause.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {cause}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is not of the documented form.
    #[error("{path}: {cause}", path = .path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Line, column and cause.
        cause: serde_norway::Error,
    },
    /// A value cannot be used.
    #[error("{path}: line {line}: {place}: {cause}", path = .path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// On which line of it.
        line: usize,
        /// Where in it.
        place: String,
        /// Why.
        cause: String,
    },
}

/// A value that cannot be used: where it stands, and why.
pub(super) struct Misplaced {
    pub(super) place: Vec<Step>,
    pub(super) cause: String,
}

impl Misplaced {
    pub(super) fn new(place: &[Step], cause: impl Into<String>) -> Self {
        Self { place: place.to_vec(), cause: cause.into() }
    }

    /// The same, in the file at `path` whose content is `text`.
    pub(super) fn in_file(self, path: PathBuf, text: &[u8]) -> FileError {
        let line = line(text, &self.place).unwrap_or(1);
        FileError::Value { path, line, place: written(&self.place), cause: self.cause }
    }
}

/// A path as people write it: `listeners[0].peer`.
fn written(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}
