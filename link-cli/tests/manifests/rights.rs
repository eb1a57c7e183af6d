//! `RIGHTS.md` is made from the very rules that `install`, `allow` and `link` print; a test against a real API server
//! asks for every one of them, and for many that are not there.

use crate::support::{same_as_file, workspace};
use link_cli::manifests::{object::Object, rights, values::Values};
use std::fmt::Write;

const HEAD: &str = "\
# Rights

What each account of Linkspan may do, and nothing beyond: made from the rules that are installed
(`BLESS=1 cargo t -p link-cli` writes it anew), and asked of a real API server for many more verbs and resources than
stand here (`tests/tests/api_server_trust`).

`<account>` is an account that a linked cluster signs in with (`linkspan-remote-access-default`, others by
`link-cli allow`); `<link>` is the name of a Link: what it brings goes with it. *namespace* is the installation's.
`list` and `watch` of a name work with `fieldSelector=metadata.name=<name>` only. Beside these rights every account of
a cluster may ask who it is and what it may do. Two values add a right: `exportNamespaces` lets the gateway list and watch
namespaces, `createNamespaces` lets the controller create them.

| account | where | group | resource | names | verbs |
|---|---|---|---|---|---|
";

/// A placeholder would be taken for markup.
fn quoted(name: &str) -> String {
    if name.contains('<') { format!("`{name}`") } else { name.to_owned() }
}

fn rows(table: &mut String, account: &str, objects: &[Object]) {
    let account = quoted(account);
    for object in objects {
        let place = if object["kind"] == "ClusterRole" { "everywhere" } else { "namespace" };
        for rule in object["rules"].as_array().into_iter().flatten() {
            let list = |key: &str| -> Vec<String> {
                let all = rule[key].as_array().into_iter().flatten();
                all.map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            let (names, verbs) = (list("resourceNames"), list("verbs").join(", "));
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            let names = if names.is_empty() { "any".to_owned() } else { names.join(", ") };
            for group in list("apiGroups") {
                let group = if group.is_empty() { "core" } else { &group };
                for resource in list("resources") {
                    writeln!(table, "| {account} | {place} | {group} | {resource} | {names} | {verbs} |")
                        .unwrap();
                }
            }
        }
    }
}

#[test]
fn the_table_of_rights_is_made_from_the_rules() {
    let (mut table, values) = (HEAD.to_owned(), Values::default());
    rows(&mut table, "linkspan-gateway", &rights::gateway("linkspan", &values));
    rows(&mut table, "linkspan-mirror-controller", &rights::controller("linkspan", &values));
    rows(&mut table, "linkspan-mirror-controller", &rights::link_reader("linkspan", "<link>"));
    rows(&mut table, "<account>", &[rights::remote_access_role()]);
    rows(&mut table, "<account>", &rights::link_account("linkspan", "<account>"));
    same_as_file(&workspace().join("link-cli/RIGHTS.md"), &table);
}
