//! Runs helm on the charts.

use crate::support::workspace;
use link_cli::manifests::object::{Key, Object};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The version of Kubernetes that templates are made for; helm's own default may be any.
const KUBERNETES: &str = "v1.34.0";

/// The charts there are.
pub(crate) const CHARTS: [&str; 3] = ["linkspan", "linkspan-crds", "linkspan-link"];

/// The folder of chart `name`.
pub(crate) fn chart(name: &str) -> PathBuf {
    workspace().join("charts").join(name)
}

/// What the YAML file holds.
pub(crate) fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_norway::from_str(&text).unwrap()
}

/// Helm of the test bed or of the system.
pub(crate) struct Helm(PathBuf);

impl Helm {
    /// Looks for it; none is a named skip.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let places = std::env::var_os("LINKSPAN_TOOLS").into_iter().chain(std::env::var_os("PATH"));
        let folders = places.flat_map(|all| std::env::split_paths(&all).collect::<Vec<_>>());
        let cache = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/linkspan/bin"));
        let found = folders.chain(cache).map(|dir| dir.join("helm")).find(|path| path.is_file());
        if found.is_none() {
            println!("SKIPPED: {test}: no helm in LINKSPAN_TOOLS, PATH or the test bed's cache");
        }
        found.map(Self)
    }

    /// Runs `helm <args>`.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.0).args(args).output().unwrap()
    }

    /// `helm lint --strict` of a chart.
    pub(crate) fn lint(&self, name: &str, values: &[&str]) {
        let chart = chart(name);
        let args = [&["lint", "--strict", chart.to_str().unwrap()][..], values].concat();
        let output = self.run(&args);
        assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// What `helm template` makes of a chart with further `values` (flags), or what it says against them.
    pub(crate) fn template(&self, name: &str, values: &[&str]) -> Result<BTreeMap<Key, Object>, String> {
        let chart = chart(name);
        // Hooks are Helm's own: without Helm, `uninstall` does what they do.
        let fixed =
            ["template", "linkspan", chart.to_str().unwrap(), "--namespace", "linkspan", "--no-hooks"];
        let output = self.run(&[&fixed[..], &["--kube-version", KUBERNETES], values].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let documents = serde_norway::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap());
        Ok(by_key(documents.filter(|object| !object.is_null())))
    }
}

/// Objects by what they are.
pub(crate) fn by_key(objects: impl IntoIterator<Item = Object>) -> BTreeMap<Key, Object> {
    objects.into_iter().map(|object| (Key::of(&object), object)).collect()
}

/// The flags that set each.
pub(crate) fn sets<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    // Helm takes a list only as JSON.
    let flag = |set: &str| if set.contains("=[") { "--set-json" } else { "--set" };
    sets.iter().flat_map(|set| [flag(set), *set]).collect()
}
