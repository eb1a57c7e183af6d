//! The charts' values are documented line by line, in `values.yaml`, the schema and the README.

use crate::{
    helm::{chart, read},
    support::same_as_file,
};
use link_cli::manifests::values::Values;
use serde_json::{Value, json};
use std::fmt::Write;

/// The charts that have values.
const WITH_VALUES: [&str; 2] = ["linkspan", "linkspan-link"];
/// Between these lines, a README is generated.
const MARKS: [&str; 2] = ["<!-- values: generated, renew with BLESS=1 -->\n", "<!-- end of values -->\n"];

/// One documented name of a `values.yaml`.
struct Documented {
    path: Vec<String>,
    text: String,
}

/// Every name of `values.yaml` that has a comment, in order. A name without one is told.
fn documented(text: &str) -> Vec<Documented> {
    let (mut all, mut comment): (Vec<Documented>, String) = (vec![], String::new());
    // Indentation and name of each level down to the current line; below a value of its own, nothing is documented.
    let mut levels: Vec<(usize, String)> = vec![];
    let mut value_of: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(words) = line.strip_prefix("# ") {
            comment = format!("{comment} {words}").trim().to_owned();
            continue;
        }
        let inside =
            value_of.is_some_and(|outer| indent > outer || (indent == outer && line.starts_with('-')));
        if inside && comment.is_empty() {
            continue;
        }
        let (name, _) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no name"));
        assert!(!comment.is_empty(), "no comment before {line:?}");
        levels.retain(|(outer, _)| *outer < indent);
        levels.push((indent, name.to_owned()));
        value_of = Some(indent);
        let path = levels.iter().map(|(_, name)| name.clone()).collect();
        all.push(Documented { path, text: std::mem::take(&mut comment) });
    }
    all
}

/// A table of all values with their defaults.
fn table(text: &str, values: &Value) -> String {
    let all = documented(text);
    let mut out = String::from("| value | default | what it is |\n|---|---|---|\n");
    for one in &all {
        let path = one.path.join(".");
        let parts =
            all.iter().any(|other| other.path.len() > one.path.len() && other.path.starts_with(&one.path));
        let default = if parts { String::new() } else { format!("`{}`", at(values, &one.path)) };
        writeln!(out, "| `{path}` | {default} | {} |", one.text.replace('|', "\\|")).unwrap();
    }
    out
}

fn at<'a>(values: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(values, |value, name| value.get(name).unwrap_or_else(|| panic!("no value {path:?}")))
}

#[test]
fn every_value_is_documented_and_in_the_readme() {
    for name in WITH_VALUES {
        let file = chart(name).join("values.yaml");
        let table = table(&std::fs::read_to_string(&file).unwrap(), &read(&file));
        let path = chart(name).join("README.md");
        let readme = std::fs::read_to_string(&path).unwrap();
        let (before, rest) =
            readme.split_once(MARKS[0]).unwrap_or_else(|| panic!("{name}: no {:?}", MARKS[0]));
        let (_, after) = rest.split_once(MARKS[1]).unwrap_or_else(|| panic!("{name}: no {:?}", MARKS[1]));
        same_as_file(&path, &format!("{before}{}\n{table}\n{}{after}", MARKS[0], MARKS[1]));
    }
}

#[test]
fn every_value_is_in_the_schema() {
    for name in WITH_VALUES {
        let schema = read(&chart(name).join("values.schema.json"));
        in_schema(&read(&chart(name).join("values.yaml")), &schema, name);
    }
}

fn in_schema(values: &Value, schema: &Value, path: &str) {
    assert_eq!(schema["additionalProperties"], false, "{path} takes unknown names");
    for (key, value) in values.as_object().unwrap() {
        let here = &schema["properties"][key];
        assert!(here.is_object(), "{path}.{key} is not in the schema");
        if here["properties"].is_object() && value.is_object() {
            in_schema(value, here, &format!("{path}.{key}"));
        }
    }
}

#[test]
fn the_charts_default_values_are_this_tools() {
    assert_eq!(read(&chart("linkspan").join("values.yaml")), json!(Values::default()));
}
