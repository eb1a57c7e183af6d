//! Running the executable, and files that go with the test.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// The executable.
pub(crate) const LINK_CLI: &str = env!("CARGO_BIN_EXE_link-cli");

/// `link-cli <args>`, with nothing of this machine's kubeconfig.
pub(crate) fn link_cli<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(LINK_CLI);
    command.args(args).env("KUBECONFIG", "/nowhere/kubeconfig").env_remove("HOME").stdin(Stdio::null());
    command
}

/// How the command ended: exit code, stdout, stderr.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// One sentence on stderr, nothing on stdout, exit code 1, and no panic.
pub(crate) fn one_sentence(command: &mut Command) -> String {
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let line = stderr.strip_suffix('\n').unwrap_or_default();
    assert!(line.starts_with("error: ") && !line.contains('\n') && !line.contains("panicked"), "{stderr:?}");
    line.to_owned()
}

/// An executable of the test bed or of the system.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("LINKSPAN_TOOLS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/linkspan/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = cache.into_iter().chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("link-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A kubeconfig with one context, `here`, that leads to `server`.
    pub(crate) fn kubeconfig(&self, server: &str) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
             clusters: [{{name: here, cluster: {{server: '{server}'}}}}]\n\
             contexts: [{{name: here, context: {{cluster: here, user: here}}}}]\n\
             users: [{{name: here, user: {{token: t}}}}]\n"
        );
        self.write("kubeconfig", &text)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
