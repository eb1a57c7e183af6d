//! Hands `f:selector` back to who had it before our patch. Pure.
//!
//! A Service's selector is one field for the API server, whoever changes a key of it owns all. Were that us, a user's
//! next server-side apply would fail with a conflict. So after each of our patches those who applied the selector own it
//! again, as if we had not been there; and where nobody had applied it, nobody owns it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use linkspan_core::api::labels::FIELD_MANAGER;
use serde_json::{Value, json};

const SELECTOR: &str = "f:selector";

/// The entries as they should be after our patch: `before` and `after` it.
pub fn hand_back(before: &[ManagedFieldsEntry], after: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    let mut entries: Vec<ManagedFieldsEntry> = after.to_vec();
    for entry in entries.iter_mut().filter(|e| e.manager.as_deref() == Some(FIELD_MANAGER)) {
        drop_selector(entry);
    }
    entries.retain(|entry| entry.fields_v1.as_ref().is_some_and(|f| f.0 != json!({})));
    let appliers = before.iter().filter(|e| e.operation.as_deref() == Some("Apply"));
    for owner in appliers.filter_map(|e| Some((e, selector_of(e)?))) {
        let (entry, owned) = owner;
        match entries.iter_mut().find(|e| is_same(e, entry)) {
            Some(known) => put_selector(known, owned),
            None => {
                let mut again = entry.clone();
                again.fields_v1 = Some(FieldsV1(json!({"f:spec": {SELECTOR: owned}})));
                entries.push(again);
            }
        }
    }
    entries
}

fn is_same(a: &ManagedFieldsEntry, b: &ManagedFieldsEntry) -> bool {
    a.manager == b.manager && a.operation == b.operation && a.subresource == b.subresource
}

fn selector_of(entry: &ManagedFieldsEntry) -> Option<Value> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.get(SELECTOR).cloned()
}

fn put_selector(entry: &mut ManagedFieldsEntry, owned: Value) {
    let fields = &mut entry.fields_v1.get_or_insert_with(|| FieldsV1(json!({}))).0;
    if let Some(fields) = fields.as_object_mut()
        && let Some(spec) = fields.entry("f:spec").or_insert_with(|| json!({})).as_object_mut()
    {
        spec.insert(SELECTOR.to_owned(), owned);
    }
}

fn drop_selector(entry: &mut ManagedFieldsEntry) {
    let Some(fields) = entry.fields_v1.as_mut().and_then(|f| f.0.as_object_mut()) else { return };
    if let Some(spec) = fields.get_mut("f:spec").and_then(Value::as_object_mut) {
        spec.remove(SELECTOR);
        if spec.is_empty() {
            fields.remove("f:spec");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn who_applied_the_selector_owns_it_again() {
        let applied = entry("kubectl", "Apply", json!({"f:spec": {"f:selector": {}, "f:ports": {}}}));
        let left = entry("kubectl", "Apply", json!({"f:spec": {"f:ports": {}}}));
        let ours = entry(
            FIELD_MANAGER,
            "Update",
            json!({"f:metadata": {"f:labels": {}}, "f:spec": {"f:selector": {}}}),
        );
        let handed = hand_back(std::slice::from_ref(&applied), &[left, ours]);
        assert_eq!(handed[0], applied);
        assert_eq!(handed[1], entry(FIELD_MANAGER, "Update", json!({"f:metadata": {"f:labels": {}}})));
    }

    #[test]
    fn one_that_owned_nothing_else_comes_back_and_we_go() {
        let applied = entry("flux", "Apply", json!({"f:spec": {"f:selector": {}}}));
        let ours = entry(FIELD_MANAGER, "Update", json!({"f:spec": {"f:selector": {}}}));
        assert_eq!(hand_back(std::slice::from_ref(&applied), &[ours]), [applied]);
    }

    #[test]
    fn where_nobody_applied_it_nobody_owns_it() {
        let made = entry("kubectl-create", "Update", json!({"f:spec": {"f:selector": {}, "f:type": {}}}));
        let left = entry("kubectl-create", "Update", json!({"f:spec": {"f:type": {}}}));
        let ours = entry(FIELD_MANAGER, "Update", json!({"f:spec": {"f:selector": {}}}));
        assert_eq!(hand_back(&[made], &[left.clone(), ours]), [left]);
    }
}
