//! What a failed test leaves behind for the person who looks into it: `target/test-artifacts/<test>/`.

use crate::tools;
use std::{fs, path::PathBuf};

/// The running test's name; the test runner gives it to the thread.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("unnamed").replace("::", ".")
}

/// The folder for what the running test leaves behind. It is not made.
pub fn folder() -> PathBuf {
    tools::repository().join("target/test-artifacts").join(test_name())
}

/// Keeps `content` as file `name` of the running test; answers where, or why not.
pub fn keep(name: &str, content: &str) -> String {
    let folder = folder();
    let path = folder.join(name);
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, content)) {
        Ok(()) => path.canonicalize().unwrap_or(path).display().to_string(),
        Err(error) => format!("{} could not be written: {error}", path.display()),
    }
}
