//! What a test needs of the machine, and what is said where that is missing.

use crate::{artifacts, clusters, tools};
use std::{io::Write, path::Path};

/// Something a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to make network namespaces.
    Root,
    /// TUN devices, which [`crate::wan::Wan`] is made of.
    Tun,
    /// An executable, in the test bed's folder or on `PATH`.
    Tool(&'static str),
    /// What [`crate::ApiServer`] starts and runs.
    ApiServer,
    /// The kind clusters of the test bed.
    Clusters,
}

/// Whether the machine has all of `needs`. Where it has not, the test says `SKIPPED` and must return; with `CI=true`
/// only the want of root is a reason to skip, as no set-up step mends it.
///
/// # Panics
/// With `CI=true`, when a tool or the clusters are missing.
pub fn have(needs: &[Need]) -> bool {
    for need in needs {
        let Some(why) = lack(*need) else { continue };
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(*need == Need::Root || !ci, "{why}");
        skip(&artifacts::test_name(), &why);
        return false;
    }
    true
}

/// Prints that test `name` is not run and why; the line is seen whether or not the test's output is captured.
pub fn skip(name: &str, why: &str) {
    // Not `eprintln!`, which the test runner captures; a closed stderr leaves nobody to tell.
    writeln!(std::io::stderr(), "SKIPPED: {name}: {why}").ok();
}

fn lack(need: Need) -> Option<String> {
    let tool = |name: &str| {
        tools::find(name).is_none().then(|| {
            format!("{name} is neither in {} nor on PATH: run `make tools`", tools::folder().display())
        })
    };
    match need {
        Need::Root => (!is_root()).then(|| "it makes network namespaces, which only root may".to_owned()),
        Need::Tun => (!Path::new("/dev/net/tun").exists()).then(|| "there is no /dev/net/tun".to_owned()),
        Need::Tool(name) => tool(name),
        Need::ApiServer => ["etcd", "kube-apiserver", "kubectl", "setpriv"].into_iter().find_map(tool),
        Need::Clusters => tool("kubectl").or_else(|| {
            let path = clusters::kubeconfig();
            (!path.exists()).then(|| format!("{} does not exist: run `make clusters`", path.display()))
        }),
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}
