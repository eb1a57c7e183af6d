//! What is printed, compared with files. `BLESS=1 cargo t -p link-cli` writes them anew.

use crate::support::{link_input, same_as_file};
use link_cli::{
    cli::VERSION,
    manifests::{
        link,
        object::{Key, Object},
        rights, system,
        values::Values,
    },
    output::{Format, documents},
};
use std::path::Path;

fn golden(name: &str, objects: &[Object]) {
    let text = documents(objects, Format::Yaml, None).replace(VERSION, "<version>");
    same_as_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name), &text);
}

fn install(sets: &[&str]) -> Vec<Object> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let values = Values::from_layers(vec![], &sets).unwrap();
    let mut objects = vec![system::namespace("linkspan")];
    objects.extend(system::parts("linkspan", &values));
    objects
}

#[test]
fn install_prints_the_system() {
    golden("install.yaml", &install(&[]));
    golden("install-ha.yaml", &install(&["ha=true"]));
}

#[test]
fn link_prints_credentials_bundle_rights_and_link() {
    let input = link_input();
    let objects = link::objects(&input);
    golden("link.yaml", &objects);
    let removed = link::keys("linkspan", "cluster-west");
    for key in objects.iter().map(Key::of) {
        assert!(removed.contains(&key), "unlink forgets {key}");
    }
}

#[test]
fn allow_prints_an_account() {
    golden("allow.yaml", &rights::link_account("linkspan", "partner"));
}

#[test]
fn uninstall_names_every_object_outside_of_the_namespace() {
    let removed = system::to_remove("linkspan");
    for object in install(&["ha=true"]).iter().chain(&system::definitions()) {
        let key = Key::of(object);
        assert!(removed.contains(&key) || key.namespace == "linkspan", "uninstall forgets {key}");
    }
}
