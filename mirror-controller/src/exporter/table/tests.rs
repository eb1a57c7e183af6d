//! Of the table, with values.

use super::*;
use kube::ResourceExt;
use serde_json::{from_value, json};

fn service(version: &str) -> Service {
    from_value(json!({
        "metadata": {"name": "my-api", "namespace": "default", "uid": "u", "resourceVersion": version,
            "labels": {"mirror.linkerd.io/exported": "true"}},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}
    }))
    .unwrap()
}

fn slice(version: &str, ready: bool) -> NamedSlice {
    let slice: EndpointSlice = from_value(json!({
        "metadata": {"name": "my-api-x", "namespace": "default", "uid": "s", "resourceVersion": version,
            "labels": {"kubernetes.io/service-name": "my-api"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]
    }))
    .unwrap();
    (slice.name_any(), PackedObject::new(slice))
}

fn my_api() -> Key {
    Key::new("default", "my-api")
}

fn list(table: &mut ExportTable, slices: Vec<NamedSlice>) {
    table.slices_begin();
    table.slices_reset(slices.into_iter().map(|slice| (my_api(), slice)).collect());
}

fn publish(table: &mut ExportTable, export: ExportedService) {
    table.published_seen(&export.name_any(), PackedObject::new(export));
}

fn synced() -> ExportTable {
    let mut table = ExportTable::new("linkspan".to_owned(), false);
    table.services_reset(vec![]);
    list(&mut table, vec![]);
    table.published_reset(vec![]);
    table
}

fn created(changes: Vec<(String, Change)>) -> ExportedService {
    match changes.into_iter().next() {
        Some((_, Change::CreateExport(export))) => *export,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_published_before_the_slices_of_a_new_export_were_listed() {
    let mut table = synced();
    table.service_seen(service("1"));
    assert!(table.take_changes().is_empty());
    let (key, events) = table.unlisted().pop().unwrap();
    table.slice_seen(&my_api(), slice("5", false));
    assert!(!table.listed(&key, events, vec![slice("4", true)]), "a slice changed meanwhile");
    let (key, events) = table.unlisted().pop().unwrap();
    assert!(table.listed(&key, events, vec![slice("5", true)]));
    assert!(created(table.take_changes()).spec.ports[0].ready);
    assert!(table.unlisted().is_empty());
}

#[test]
fn what_is_published_follows_the_slices_and_goes_with_the_label() {
    let mut table = synced();
    table.service_seen(service("1"));
    list(&mut table, vec![slice("4", true)]);
    let mut export = created(table.take_changes());
    (export.metadata.uid, export.metadata.resource_version) = (Some("e".into()), Some("10".into()));
    publish(&mut table, export);
    assert!(table.take_changes().is_empty(), "what stands is right");
    table.slice_seen(&my_api(), slice("6", false));
    assert!(matches!(&table.take_changes()[..], [(_, Change::UpdateExport(e))] if !e.spec.ports[0].ready));
    table.service_gone(&my_api(), &State::of(&service("2")));
    assert!(matches!(&table.take_changes()[..], [(_, Change::DeleteExport(_))]));
}

#[test]
fn what_nobody_exports_is_withdrawn_but_only_after_both_were_listed() {
    let stray = ExportedService::new("default.other", Default::default());
    let mut table = ExportTable::new("linkspan".to_owned(), false);
    table.published_reset(vec![(stray.name_any(), PackedObject::new(stray))]);
    assert!(table.take_changes().is_empty());
    table.services_reset(vec![]);
    assert!(matches!(&table.take_changes()[..], [(_, Change::DeleteExport(_))]));
}

#[test]
fn a_service_that_is_exported_while_all_slices_are_being_listed_is_listed_by_itself() {
    let mut table = synced();
    table.slices_begin();
    table.service_seen(service("1"));
    table.slices_reset(vec![]);
    assert!(table.take_changes().is_empty(), "its slices may have gone by before");
    assert_eq!(table.unlisted().len(), 1);
}

#[test]
fn only_namespaces_that_the_gate_names_export() {
    let mut table = ExportTable::new("linkspan".to_owned(), true);
    table.services_reset(vec![service("1")]);
    list(&mut table, vec![slice("4", true)]);
    table.published_reset(vec![]);
    assert!(table.take_changes().is_empty(), "the gate is not known yet");
    assert!(table.take_withheld(9).is_empty(), "nor is what it withholds");
    table.gate_reset(["other".to_owned()]);
    assert!(table.take_changes().is_empty());
    assert_eq!(table.take_withheld(9), [(my_api(), "u".to_owned())]);
    table.mark_all();
    assert!(table.take_changes().is_empty() && !table.has_withheld(), "told once");
    let name = table.withheld_not_told(&my_api());
    table.mark(name);
    assert!(table.take_changes().is_empty());
    assert_eq!(table.take_withheld(9).len(), 1, "told again, as it could not be told");
    table.gate("default", true);
    let mut export = created(table.take_changes());
    (export.metadata.uid, export.metadata.resource_version) = (Some("e".into()), Some("10".into()));
    publish(&mut table, export);
    assert!(table.take_changes().is_empty() && !table.has_withheld());
    table.gate("default", false);
    assert!(matches!(&table.take_changes()[..], [(_, Change::DeleteExport(_))]));
    assert_eq!(table.take_withheld(9).len(), 1, "it was exported in between");
}
