//! What is read of a file, how a bad one is refused, and that `CONFIG.md` says what the code does.

use super::{form::FileConfig, load};
use crate::{
    source::Tables,
    testing::{certs::Authority, files::Files},
};
use linkspan_core::api::names::Target;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIG.md");

/// What stands in `CONFIG.md` between the lines `begin` and `end`.
fn documented<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let from = text.find(begin).expect(begin) + begin.len();
    &text[from..from + text[from..].find(end).expect(end)]
}

/// The documented example, in a folder with everything it names: a gateway of `east` that calls `west`.
fn write_example(files: &Files) -> PathBuf {
    let (west, east) = (Authority::new("west"), Authority::new("east"));
    let (server, client) = (east.gateway("linkspan"), west.client("linkspan", "east", "u"));
    files.write("server.crt", &server.cert_pem);
    files.write("server.key", &server.key_pem);
    files.write("own-ca.crt", &east.pem());
    files.write("client-west.crt", &client.cert_pem);
    files.write("client-west.key", &client.key_pem);
    files.write("west-ca.crt", &west.pem());
    let text = fs::read_to_string(DOCUMENT).unwrap();
    files.write("gateway.yaml", documented(&text, "```yaml\n", "```\n"))
}

#[test]
fn the_documented_example_fills_the_tables() {
    let files = Files::new("whole");
    let tables = Tables::empty();
    load(&write_example(&files)).map_err(|e| e.to_string()).unwrap().publish(&tables);
    let target: Target = "my-api.default:8080".parse().unwrap();
    assert!(tables.services.read(|t| t.is_exported(&target)));
    assert_eq!(tables.ports.read(|t| t.routes().0[&10_007].target.clone()), target);
    let split = tables.ports.read(|t| t.routes().0[&10_008].split.clone()).unwrap();
    assert_eq!((split.namespace.as_str(), split.route.apex.as_str()), ("default", "web"));
    let weights = split.route.ports[&10_008].backends.iter().map(|b| b.weight);
    assert_eq!(weights.collect::<Vec<_>>(), [9, 1]);
    assert_eq!(tables.links.read(|t| t.rows()["west"].clone().unwrap().endpoints.len()), 2);
    assert!(tables.credentials.borrow().server.is_some());
    assert_eq!(tables.accounts.read(|t| t.uid("east").map(str::to_owned)), Some("0b7e7f3a".to_owned()));
}

#[test]
fn a_bad_file_is_refused_by_line_place_and_reason() {
    let files = Files::new("bad");
    let path = write_example(&files);
    let good = fs::read_to_string(&path).unwrap();
    let line_of = |text: &str| good[..good.find(text).expect(text)].lines().count();
    let refused = |from: &str, to: &str| {
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        assert!(good.contains(from));
        load(&path).err().expect(to).to_string()
    };
    let unknown = refused("  - port: 10007", "  - prot: 10007");
    let line = line_of("- port: 10007");
    assert!(unknown.contains("prot") && unknown.contains(&format!("line {line}")), "{unknown}");
    for (from, to, expected) in [
        ("peer: west", "peer: north", "listeners[0].peer: there is no peer named \"north\""),
        (
            "target: my-api.default:8080",
            "target: my-api",
            "listeners[0].target: \"my-api\" is not of the form",
        ),
        ("port: 10007", "port: 0", "listeners[0].port: a port from 1 to 65535"),
        ("port: 10008", "port: 10007", "splits[0].port: this port is there twice"),
        ("name: web.default", "name: web", "splits[0].name: \"web\" is not of the form"),
        (
            "name: web-west, peer: west",
            "name: web-west, peer: north",
            "splits[0].backends[0].peer: there is no peer",
        ),
        (
            "name: canary-west",
            "name: canary_west",
            "splits[0].backends[1].name: \"canary_west\" is no DNS label",
        ),
        ("- name: west", "- name: West", "peers[0].name: \"West\" is no DNS label"),
        ("identity: spiffe://west", "identity: spiffe:/west", "peers[0].identity: \"spiffe:/west"),
        ("uid: 0b7e7f3a", "uid: ''", "accounts[0].name: an account has"),
        ("key: server.key", "key: none.key", "server.key: "),
        ("certificate: server.crt", "certificate: server.key", "server.certificate: "),
        ("bundle: west-ca.crt", "bundle: client-west.key", "peers[0].bundle: "),
        ("key: client-west.key", "key: server.key", "peers[0].certificate: "),
        ("name: my-api.default", "name: my-api", "services[0].name: \"my-api\" is not of the form"),
    ] {
        let error = refused(from, to);
        // An account is named by its first line; a certificate by that of its own, above its key.
        let place = expected.split(": ").next().unwrap();
        let line = match place {
            "accounts[0].name" => line_of("- name: east"),
            "peers[0].certificate" => line_of("certificate: client-west.crt"),
            _ => line_of(from),
        };
        let expected = format!("gateway.yaml: line {}: {expected}", line.max(1));
        assert!(error.contains(&expected), "{error}\nexpected: {expected}");
    }
    let missing = refused("key: server.key", "key: none.key");
    assert!(missing.contains("none.key cannot be read: No such file"), "{missing}");
    fs::write(&path, format!("{good}  - name: my-api.default\n    ports: []\n")).unwrap();
    let twice = load(&path).err().unwrap().to_string();
    assert!(twice.contains("services[1].name: this Service is there twice"), "{twice}");
    fs::remove_file(&path).unwrap();
    assert!(load(&path).err().unwrap().to_string().contains("gateway.yaml cannot be read"));
}

/// Tables of all fields, as the code's own comments explain them.
fn tables_of_fields() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(FileConfig)).unwrap();
    let mut text = String::new();
    table_of("", &schema, &schema["$defs"], &mut text);
    text
}

fn table_of(path: &str, object: &Value, definitions: &Value, text: &mut String) {
    if path.is_empty() {
        text.push_str("\nAt the top:\n");
    } else {
        write!(text, "\n`{path}`:\n").unwrap();
    }
    text.push_str("\n| key | | |\n|---|---|---|\n");
    let required = object["required"].as_array().cloned().unwrap_or_default();
    let mut inner = Vec::new();
    // In the same order whatever features serde_json is built with.
    let properties: BTreeMap<_, _> = object["properties"].as_object().unwrap().iter().collect();
    for (key, about) in properties {
        let needed = if required.contains(&Value::from(key.as_str())) { "" } else { "optional" };
        let meaning = about["description"].as_str().unwrap_or_default().replace('\n', " ");
        writeln!(text, "| `{key}` | {needed} | {meaning} |").unwrap();
        let of = |value: &Value| value["$ref"].as_str().map(|r| r.rsplit('/').next().unwrap().to_owned());
        let dot = if path.is_empty() { String::new() } else { format!("{path}.") };
        if let Some(name) = of(about) {
            inner.push((format!("{dot}{key}"), name));
        } else if let Some(name) = of(&about["items"]) {
            inner.push((format!("{dot}{key}[]"), name));
        }
    }
    for (path, name) in inner {
        table_of(&path, &definitions[&name], definitions, text);
    }
}

#[test]
fn the_document_lists_every_field_and_flag() {
    let (begin, end) =
        ("<!-- fields: written by BLESS=1 cargo t -p linkspan-gateway -->\n", "\n<!-- end -->");
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let (found, expected) = (documented(&text, begin, end), tables_of_fields());
    if found != expected {
        #[allow(
            clippy::disallowed_methods,
            reason = "BLESS is how a developer asks for the file to be written"
        )]
        let bless = std::env::var_os("BLESS").is_some();
        assert!(bless, "CONFIG.md differs from the code: run BLESS=1 cargo t -p linkspan-gateway");
        let (before, after) = text.split_once(begin).unwrap();
        let after = &after[found.len()..];
        fs::write(DOCUMENT, format!("{before}{begin}{expected}{after}")).unwrap();
    }
    let command = <crate::config::Args as clap::CommandFactory>::command();
    for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
        let told = ["help", "version", "kubeconfig", "context", "namespace", "pod-name", "export-namespaces"]
            .contains(&flag)
            || text.contains(&format!("`--{flag}"));
        assert!(told, "CONFIG.md says nothing of --{flag}");
    }
}
