//! The Services that splits concern: those that are named, and those that carry something of ours. All others are
//! forgotten as they are seen, so that memory does not grow with the cluster. Pure.
//!
//! A Service whose name comes to matter later was forgotten: it must be read ([`Services::unread`]) before anything
//! is decided.

use crate::{
    snapshot::{Key, label},
    split::table::{Known, has_key, is_labelled},
};
use k8s_openapi::api::core::v1::Service;
use linkspan_core::api::labels::{MIRRORED_SERVICE, SPLIT_APEX};
use std::collections::BTreeSet;

/// Services that are no mirrors, as far as splits concern them.
#[derive(Debug, Default)]
pub struct Services {
    /// Those that are kept.
    pub known: Known<Service>,
    named: BTreeSet<Key>,
    /// Named since the newest list began, which may have passed them over.
    named_late: BTreeSet<Key>,
    unread: BTreeSet<Key>,
}

impl Services {
    /// Whether what is known is all that concerns splits.
    pub fn synced(&self) -> bool {
        self.known.synced && self.unread.is_empty()
    }

    /// Those that must be read; the answer goes to [`Services::answered`].
    pub fn unread(&self) -> Vec<Key> {
        if self.known.synced { self.unread.iter().cloned().collect() } else { Vec::new() }
    }

    /// Whether `service` concerns a split, or did.
    pub fn concerns(&self, service: &Service) -> bool {
        let key = Key::of(service);
        is_marked(service) || self.named.contains(&key) || self.known.items.contains_key(&key)
    }

    /// These names matter, and no others.
    pub fn name(&mut self, named: BTreeSet<Key>) {
        for key in named.difference(&self.named) {
            self.named_late.insert(key.clone());
            if !self.known.items.contains_key(key) {
                self.unread.insert(key.clone());
            }
        }
        self.unread.retain(|key| named.contains(key));
        self.named = named;
        self.forget_others();
    }

    fn forget_others(&mut self) {
        let Self { known, named, .. } = self;
        known.items.retain(|key, service| named.contains(key) || is_marked(service));
    }

    /// A list begins.
    pub fn begins(&mut self) {
        self.named_late.clear();
    }

    /// `all` is what a list brought.
    pub fn reset(&mut self, all: impl IntoIterator<Item = Service>) {
        self.known.reset(all);
        self.unread =
            self.named_late.iter().filter(|key| !self.known.items.contains_key(key)).cloned().collect();
    }

    /// `service` is there; an older state than what is known is no news.
    pub fn seen(&mut self, service: Service) {
        self.unread.remove(&Key::of(&service));
        self.known.seen(service);
        self.forget_others();
    }

    /// `service` was deleted; another may stand under its name by now.
    pub fn gone(&mut self, service: &Service) {
        self.unread.remove(&Key::of(service));
        self.known.gone(service);
    }

    /// What reading `key` brought. What the watch told meanwhile is newer.
    pub fn answered(&mut self, key: &Key, service: Option<Service>) {
        let no_mirror = |service: &Service| label(&service.metadata, MIRRORED_SERVICE).is_none();
        if self.unread.remove(key)
            && let Some(service) = service.filter(no_mirror)
        {
            self.known.seen(service);
        }
    }
}

/// Whether `service` carries anything of ours.
fn is_marked(service: &Service) -> bool {
    label(&service.metadata, SPLIT_APEX).is_some() || is_labelled(service) || has_key(service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt;
    use serde_json::{from_value, json};

    fn service(name: &str, version: u32) -> Service {
        from_value(json!({"metadata": {"name": name, "namespace": "shop", "uid": name,
            "resourceVersion": version.to_string()}}))
        .unwrap()
    }

    fn labelled(name: &str, key: &str) -> Service {
        let mut service = service(name, 1);
        service.metadata.labels = Some([(key.to_owned(), "true".to_owned())].into());
        service
    }

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn names(services: &Services) -> Vec<&str> {
        services.known.items.keys().map(|key| key.name.as_str()).collect()
    }

    /// What the watch brings of `service`.
    fn watched(services: &mut Services, service: Service) {
        if services.concerns(&service) {
            services.seen(service);
        }
    }

    #[test]
    fn only_what_is_named_or_marked_is_kept() {
        let mut services = Services::default();
        services.name([key("api")].into());
        services.begins();
        services.reset([service("api", 1)]);
        watched(&mut services, service("other", 2));
        watched(&mut services, labelled("shadow", SPLIT_APEX));
        assert_eq!((names(&services), services.synced()), (vec!["api", "shadow"], true));
        let mut bare = service("shadow", 3);
        watched(&mut services, bare.clone());
        assert_eq!(names(&services), ["api"], "its mark is gone");
        bare.metadata.name = Some("api".to_owned());
        services.name(BTreeSet::new());
        watched(&mut services, bare);
        assert!(services.known.items.is_empty() && services.synced());
    }

    #[test]
    fn what_is_named_later_is_read_first() {
        let mut services = Services::default();
        services.reset([]);
        services.name([key("api"), key("api-west"), key("none")].into());
        assert!(!services.synced());
        assert_eq!(services.unread(), [key("api"), key("api-west"), key("none")]);
        services.answered(&key("api"), Some(service("api", 1)));
        services.answered(&key("api-west"), Some(labelled("api-west", MIRRORED_SERVICE)));
        services.answered(&key("none"), None);
        assert_eq!((names(&services), services.synced()), (vec!["api"], true));
    }

    #[test]
    fn the_watch_is_newer_than_an_answer() {
        let mut services = Services::default();
        services.reset([]);
        services.name([key("made"), key("deleted"), key("left")].into());
        watched(&mut services, service("made", 7));
        services.gone(&service("deleted", 8));
        services.answered(&key("made"), Some(service("made", 6)));
        services.answered(&key("deleted"), Some(service("deleted", 6)));
        assert_eq!(names(&services), ["made"]);
        assert_eq!(services.known.items[&key("made")].resource_version().unwrap(), "7");
        services.name([key("made")].into());
        assert!(services.synced(), "what is not named any more need not be read");
    }

    #[test]
    fn a_list_may_have_passed_over_what_was_named_meanwhile() {
        let mut services = Services::default();
        services.name([key("early"), key("absent")].into());
        services.begins();
        services.name([key("early"), key("absent"), key("late")].into());
        services.reset([service("early", 1)]);
        assert_eq!(services.unread(), [key("late")], "what was named before and is not listed is not there");
    }
}
