//! What the tests of this folder share: comparing with golden files, and renewing them by `BLESS=1`.

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Compares `text` with the file, or writes it with `BLESS=1`.
pub(crate) fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    let first = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = first.unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    assert!(
        golden == text,
        "{} differs from line {}:\n  file: {:?}\n  now:  {:?}\nrenew it with BLESS=1",
        path.display(),
        line + 1,
        golden.lines().nth(line),
        text.lines().nth(line)
    );
}
