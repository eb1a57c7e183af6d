//! The tool under another name: any, and that by which kubectl finds plugins.

use crate::support::{Folder, LINK_CLI, find, run};
use std::{
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

#[test]
fn kubectl_runs_it_as_a_plugin() {
    let folder = Folder::new();
    symlink(LINK_CLI, folder.0.join("kubectl-linkspan")).unwrap();
    let Some(kubectl) = find("kubectl") else {
        println!("SKIPPED: kubectl_runs_it_as_a_plugin: kubectl is not installed");
        return;
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(folder.0.clone()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(dirs).unwrap();
    let linkspan = |args: &str| {
        let mut command = Command::new(&kubectl);
        command.arg("linkspan").args(args.split(' ')).env("PATH", &path).stdin(Stdio::null());
        run(&mut command)
    };
    let (code, version, stderr) = linkspan("version --client");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(version, format!("link-cli: {}\n", env!("CARGO_PKG_VERSION")));
    let (_, help, _) = linkspan("gateways --help");
    assert!(help.contains("Usage: kubectl linkspan gateways"), "{help}");
    assert!(help.contains("  kubectl linkspan --context east gateways"), "{help}");
    let (code, _, stderr) = linkspan("gatways");
    assert_ne!(code, Some(0));
    assert!(stderr.contains("gateways"), "{stderr}");
}

#[test]
fn under_another_name_it_speaks_of_itself_by_that_name() {
    let folder = Folder::new();
    let other = folder.0.join("mc");
    symlink(LINK_CLI, &other).unwrap();
    let (code, help, _) = run(Command::new(&other).args(["unlink", "--help"]));
    assert_eq!(code, Some(0));
    assert!(help.contains("Usage: mc unlink"), "{help}");
    let (_, script, _) = run(Command::new(&other).args(["completion", "bash"]));
    assert!(script.contains("_mc()"), "the script completes the name it was asked under");
}
