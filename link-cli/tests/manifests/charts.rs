//! The charts hold what `link-cli install` prints, for every set of values.

use crate::support::{same_as_file, workspace};
use link_cli::{
    cli::VERSION,
    manifests::{
        object::{Key, Object},
        system,
        values::Values,
    },
    output::yaml,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// The version of Kubernetes that templates are made for; helm's own default may be any.
const KUBERNETES: &str = "v1.34.0";

fn charts() -> PathBuf {
    workspace().join("charts")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_norway::from_str(&text).unwrap()
}

/// The sets of values that both ways of installing are compared for.
fn cases() -> [(&'static str, Vec<&'static str>); 6] {
    [
        ("default", vec![]),
        ("ha", vec!["ha=true"]),
        ("node-port", vec!["gateway.serviceType=NodePort", "gateway.port=5143"]),
        ("minimal", vec!["gateway.replicas=1", "gateway.serviceType=ClusterIP"]),
        ("registry", vec!["registry=registry.example/a", "imageVersion=9.9.9", "imagePullPolicy=Always"]),
        (
            "logs",
            vec![
                "logFormat=json",
                "logLevel=debug",
                "gateway.serviceAnnotations.a/b=c",
                "controller.replicas=2",
            ],
        ),
    ]
}

/// Helm of the test bed or of the system; none is a named skip.
fn helm(test: &str) -> Option<PathBuf> {
    let places = std::env::var_os("LINKSPAN_TOOLS").into_iter().chain(std::env::var_os("PATH"));
    let found =
        places.flat_map(|all| std::env::split_paths(&all).collect::<Vec<_>>()).map(|dir| dir.join("helm"));
    let helm = found.into_iter().find(|path| path.is_file());
    if helm.is_none() {
        println!("SKIPPED: {test}: no helm in LINKSPAN_TOOLS or PATH");
    }
    helm
}

fn run(helm: &Path, args: &[String]) -> String {
    let output = Command::new(helm).args(args).output().unwrap();
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn template(helm: &Path, chart: &str, sets: &[&str]) -> BTreeMap<Key, Object> {
    let chart = charts().join(chart).to_string_lossy().into_owned();
    let mut args: Vec<String> =
        ["template", "linkspan", &chart, "--namespace", "linkspan", "--kube-version", KUBERNETES]
            .map(str::to_owned)
            .into();
    args.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    let text = run(helm, &args);
    let documents = serde_norway::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap());
    documents.filter(|object| !object.is_null()).map(|object| (Key::of(&object), object)).collect()
}

fn by_key(objects: Vec<Object>) -> BTreeMap<Key, Object> {
    objects.into_iter().map(|object| (Key::of(&object), object)).collect()
}

#[test]
fn the_charts_definitions_are_made_from_the_types() {
    for definition in system::definitions() {
        let name = definition["spec"]["names"]["plural"].as_str().unwrap();
        let path = charts().join("linkspan-crds/templates").join(format!("{name}.yaml"));
        let text = yaml(&definition);
        assert!(!text.contains("{{"), "{name} would be taken for a template");
        same_as_file(&path, &text);
    }
}

#[test]
fn the_charts_versions_are_this_tools() {
    for chart in ["linkspan", "linkspan-crds"] {
        let chart = read(&charts().join(chart).join("Chart.yaml"));
        assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(VERSION), &json!(VERSION)));
    }
}

#[test]
fn the_charts_default_values_are_this_tools() {
    assert_eq!(read(&charts().join("linkspan/values.yaml")), json!(Values::default()));
}

#[test]
fn every_value_is_documented_and_in_the_schema() {
    let text = std::fs::read_to_string(charts().join("linkspan/values.yaml")).unwrap();
    let mut before = "";
    for line in text.lines() {
        let top = !line.starts_with('#') && !line.trim_start().starts_with('#') && line.contains(':');
        let inner_of_map = before.trim_end().ends_with(':') && !before.trim_start().starts_with('#');
        if top && !line.contains("cpu:") && !line.contains("memory:") && !line.contains("requests:") {
            assert!(before.trim_start().starts_with('#') || inner_of_map, "no comment before {line:?}");
        }
        before = line;
    }
    let schema = read(&charts().join("linkspan/values.schema.json"));
    in_schema(&json!(Values::default()), &schema, "");
}

fn in_schema(values: &Value, schema: &Value, path: &str) {
    assert_eq!(schema["additionalProperties"], false, "{path} takes unknown keys");
    for (key, value) in values.as_object().unwrap() {
        let here = &schema["properties"][key];
        assert!(here.is_object(), "{path}.{key} is not in the schema");
        if here["properties"].is_object() && key != "resources" {
            in_schema(value, here, &format!("{path}.{key}"));
        }
    }
}

#[test]
fn templates_neither_ask_the_cluster_nor_run_values() {
    for chart in ["linkspan", "linkspan-crds"] {
        for entry in std::fs::read_dir(charts().join(chart).join("templates")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["lookup ", "tpl "] {
                assert!(
                    !text.contains(&format!("{{{{ {word}")) && !text.contains(&format!("( {word}")),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn helm_and_install_bring_the_same_objects() {
    let Some(helm) = helm("helm_and_install_bring_the_same_objects") else { return };
    assert_eq!(template(&helm, "linkspan-crds", &[]), by_key(system::definitions()), "definitions");
    for (name, sets) in cases() {
        let owned: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let values = Values::from_layers(vec![], &owned).unwrap();
        let printed = by_key(system::parts("linkspan", &values));
        let charted = template(&helm, "linkspan", &sets);
        assert_eq!(
            charted.keys().collect::<Vec<_>>(),
            printed.keys().collect::<Vec<_>>(),
            "{name}: not the same objects"
        );
        for (key, object) in &printed {
            assert_eq!(&charted[key], object, "{name}: {key}");
        }
    }
}

#[test]
fn helm_refuses_wrong_values_and_lints_the_charts() {
    let Some(helm) = helm("helm_refuses_wrong_values_and_lints_the_charts") else { return };
    for chart in ["linkspan", "linkspan-crds"] {
        run(&helm, &["lint".into(), "--strict".into(), charts().join(chart).to_string_lossy().into_owned()]);
    }
    let chart = charts().join("linkspan").to_string_lossy().into_owned();
    let takes = |set: &str| {
        let output = Command::new(&helm)
            .args(["template", &chart, "--kube-version", KUBERNETES, "--set", set])
            .output();
        output.unwrap().status.success()
    };
    assert!(takes("gateway.port=1"));
    for wrong in [
        "gatway.port=1",
        "gateway.port=70000",
        "gateway.serviceType=Load",
        "gateway.replicas=0",
        "ha=perhaps",
    ] {
        assert!(!takes(wrong), "{wrong} is taken");
    }
}
