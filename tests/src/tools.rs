//! Where the executables are: those of the test bed, and our own.

use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
};

/// The cache of the test bed: `$LINKSPAN_CACHE`, else `~/.cache/linkspan`.
pub fn cache() -> PathBuf {
    match env::var_os("LINKSPAN_CACHE") {
        Some(cache) => cache.into(),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/linkspan"),
    }
}

/// The folder with the test bed's executables: `$LINKSPAN_TOOLS`, else `bin` in the cache.
pub fn folder() -> PathBuf {
    env::var_os("LINKSPAN_TOOLS").map_or_else(|| cache().join("bin"), Into::into)
}

/// The executable `name` of the test bed, else of `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(folder())
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The executable `name` of the test bed, else of `PATH`.
///
/// # Errors
/// When it is in neither.
pub fn tool(name: &str) -> Result<PathBuf> {
    find(name)
        .with_context(|| format!("{name} is neither in {} nor on PATH: run `make tools`", folder().display()))
}

/// `PATH` for commands that tests run: the test bed's folder, then our executables', then what it was.
pub fn path() -> std::ffi::OsString {
    let before = env::var_os("PATH").unwrap_or_default();
    let dirs = [folder()].into_iter().chain(profile_folder().ok()).chain(env::split_paths(&before));
    env::join_paths(dirs).unwrap_or(before)
}

/// Our own executable `name`, built with the profile of the running test.
///
/// # Errors
/// When it has not been built.
pub fn ours(name: &str) -> Result<PathBuf> {
    let folder = profile_folder()?;
    let file = folder.join(name);
    if !file.is_file() {
        let profile = folder.file_name().unwrap_or_default().to_string_lossy();
        bail!("{} does not exist: run `cargo build --profile {profile} --bin {name}`", file.display());
    }
    Ok(file)
}

/// `target/<triple>/<profile>`, found from the test's own path `<that>/deps/<test>-<hash>`.
fn profile_folder() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell the running test's own path")?;
    let folder = own.parent().filter(|deps| deps.ends_with("deps")).and_then(Path::parent);
    Ok(folder.with_context(|| format!("{} does not lie in a target folder", own.display()))?.to_owned())
}

/// The repository's root folder.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
