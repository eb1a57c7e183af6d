//! Exported Services in namespaces that may not export: whoever exported one is told by an Event about it. Pure.

use crate::snapshot::Key;
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::ObjectMeta;
use linkspan_core::api::labels::CONTROLLER;
use std::collections::BTreeMap;

/// What is withheld, and whether that was told.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    told: BTreeMap<Key, String>,
    untold: BTreeMap<Key, String>,
}

impl Withheld {
    /// `service` was looked at: the uid of what is withheld under its name, if it is. What was told is told again only
    /// of another object, or when it could be exported in between.
    pub(super) fn looked_at(&mut self, service: &Key, withheld: Option<String>) {
        let Some(uid) = withheld else {
            self.told.remove(service);
            self.untold.remove(service);
            return;
        };
        if self.told.get(service) != Some(&uid) {
            self.untold.insert(service.clone(), uid);
        }
    }

    /// At most `most` of what is to be told, by name and uid. It counts as told from now on.
    pub(super) fn take(&mut self, most: usize) -> Vec<(Key, String)> {
        let taken: Vec<_> = (0..most).map_while(|_| self.untold.pop_first()).collect();
        self.told.extend(taken.iter().cloned());
        taken
    }

    /// It could not be told of `service`: the next look brings it back.
    pub(super) fn not_told(&mut self, service: &Key) {
        self.told.remove(service);
    }

    /// Whether there is more to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.untold.is_empty()
    }
}

/// The Event about the Service of this name and `uid`, told by the replica `reporter`: its namespace is not among those
/// that `gate` selects. Its name is always the same, so that it is refused while it stands: another leader, or the same
/// one after a restart, does not repeat it.
pub(super) fn event(service: &Key, uid: &str, gate: &str, reporter: &str, now: Timestamp) -> Event {
    let (namespace, name) = (&service.namespace, &service.name);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.export-withheld.{uid}")),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(reporter.to_owned()),
        action: Some("Export".to_owned()),
        reason: Some("ExportWithheld".to_owned()),
        note: Some(format!(
            "not exported: namespace {namespace} is not among those that may export (exportNamespaces is `{gate}`); \
             give the namespace labels that this selects, or ask those who installed Linkspan to change it"
        )),
        type_: Some("Warning".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Key {
        Key::new("shop", "api")
    }

    #[test]
    fn it_is_told_once_and_again_only_of_another_object_or_after_it_was_exported() {
        let mut withheld = Withheld::default();
        let uid = |uid: &str| Some(uid.to_owned());
        withheld.looked_at(&api(), uid("1"));
        withheld.looked_at(&api(), uid("1"));
        assert_eq!(withheld.take(9), [(api(), "1".to_owned())]);
        withheld.looked_at(&api(), uid("1"));
        assert!(withheld.take(9).is_empty(), "another look is no news");
        withheld.looked_at(&api(), uid("2"));
        assert_eq!(withheld.take(9), [(api(), "2".to_owned())]);
        withheld.looked_at(&api(), None);
        withheld.looked_at(&api(), uid("2"));
        assert_eq!(withheld.take(9).len(), 1, "it was exported in between");
        withheld.not_told(&api());
        assert!(withheld.is_empty(), "not before the next look");
        withheld.looked_at(&api(), uid("2"));
        withheld.looked_at(&Key::new("shop", "b"), uid("3"));
        assert_eq!(withheld.take(1).len(), 1);
        assert!(!withheld.is_empty());
        withheld.looked_at(&Key::new("shop", "b"), None);
        assert!(withheld.is_empty(), "what is exported by now needs no telling");
    }

    #[test]
    fn an_event_is_about_the_service_and_says_what_to_do() {
        let event = event(&api(), "u-1", "team in (a,b)", "pod", Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.name.as_deref(), Some("api.export-withheld.u-1"));
        let regarding = event.regarding.unwrap();
        // The API server refuses an Event in another namespace than that of the object.
        assert_eq!(event.metadata.namespace, regarding.namespace);
        assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some("Service"), Some("u-1")));
        let note = event.note.unwrap();
        assert!(note.contains("namespace shop") && note.contains("`team in (a,b)`"), "{note}");
    }
}
