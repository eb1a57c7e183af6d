//! What newly stands in a Link's status and is told by a Kubernetes Event, too.
//!
//! Events are about the Link, in the installation's namespace: the namespace of a Service that is not mirrored may be
//! what is missing.

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use linkspan_core::api::{
    condition::Condition,
    labels::CONTROLLER,
    link::{Link, LinkStatus, ObjectRef},
};

/// Longest note that the API takes, in bytes.
const MAX_NOTE: usize = 1024;

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The Service of the target cluster that it is about; `None`: the Link as a whole.
    pub service: Option<ObjectRef>,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// What `new` says and `old` did not: Services that are not mirrored, or not as a whole, and conditions that became
/// `False`.
pub fn news(old: &LinkStatus, new: &LinkStatus) -> Vec<News> {
    let known = |service: &ObjectRef, condition: &Condition| {
        let before = old.mirror_services.iter().filter(|s| s.remote_ref == *service);
        before.flat_map(|s| &s.conditions).any(|c| c.reason == condition.reason)
    };
    let services = new.mirror_services.iter().flat_map(|status| {
        let fresh = status.conditions.iter().filter(|c| !known(&status.remote_ref, c));
        fresh.map(|c| of_condition(Some(status.remote_ref.clone()), c))
    });
    let was = |condition: &Condition| {
        old.conditions.iter().any(|c| c.kind == condition.kind && c.status == condition.status)
    };
    let conditions = new.conditions.iter().filter(|c| c.status == "False" && !was(c));
    services.chain(conditions.map(|c| of_condition(None, c))).collect()
}

fn of_condition(service: Option<ObjectRef>, condition: &Condition) -> News {
    News { service, reason: condition.reason.clone(), message: condition.message.clone() }
}

/// The Event that tells `news` of `link`, by the replica `reporter`.
pub fn event(link: &Link, news: &News, reporter: &str, now: Timestamp) -> Event {
    let note = match &news.service {
        Some(service) => {
            format!("Service {} in namespace {}: {}", service.name, service.namespace, news.message)
        }
        None => news.message.clone(),
    };
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", link.name_any())),
            namespace: link.namespace(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(reporter.to_owned()),
        action: Some(if news.service.is_some() { "Mirror" } else { "Follow" }.to_owned()),
        reason: Some(news.reason.clone()),
        note: Some(cut(note)),
        type_: Some("Warning".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(Link::api_version(&()).into_owned()),
            kind: Some(Link::kind(&()).into_owned()),
            name: Some(link.name_any()),
            namespace: link.namespace(),
            uid: link.uid(),
            ..ObjectReference::default()
        }),
        related: news.service.as_ref().map(|service| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(service.kind.clone()),
            name: Some(service.name.clone()),
            namespace: Some(service.namespace.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// `note`, cut at a character where it is too long.
fn cut(mut note: String) -> String {
    let end = (0..=MAX_NOTE.min(note.len())).rev().find(|at| note.is_char_boundary(*at));
    note.truncate(end.unwrap_or_default());
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkspan_core::api::link::ServiceStatus;

    fn status(reason: &str, synced: &str) -> LinkStatus {
        let failing = |reason: &str| ServiceStatus {
            remote_ref: ObjectRef { kind: "Service".into(), name: "api".into(), ..ObjectRef::default() },
            conditions: vec![Condition::no("Mirrored", reason, "why")],
            ..ServiceStatus::default()
        };
        let mut condition = Condition::yes("Synced", "Synced", "all");
        condition.status = synced.to_owned();
        LinkStatus {
            mirror_services: (!reason.is_empty()).then(|| failing(reason)).into_iter().collect(),
            conditions: vec![condition],
            ..LinkStatus::default()
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let told = |old: &LinkStatus, new: &LinkStatus| -> Vec<String> {
            news(old, new).into_iter().map(|n| n.reason).collect()
        };
        let (fine, conflict) = (status("", "True"), status("Conflict", "True"));
        assert_eq!(told(&fine, &conflict), ["Conflict"]);
        assert!(told(&conflict, &conflict).is_empty());
        assert_eq!(told(&conflict, &status("MissingNamespace", "True")), ["MissingNamespace"]);
        assert!(told(&conflict, &fine).is_empty());
        assert_eq!(told(&fine, &status("", "False")), ["Synced"]);
        assert!(told(&status("", "False"), &status("", "False")).is_empty());
    }

    #[test]
    fn an_event_names_the_link_and_the_service_and_its_note_is_not_too_long() {
        let mut link = Link::new("west", Default::default());
        link.metadata.namespace = Some("linkspan".to_owned());
        let message = "ü".repeat(5000);
        let service = ObjectRef {
            kind: "Service".into(),
            name: "api".into(),
            namespace: "shop".into(),
            ..ObjectRef::default()
        };
        let news = News { service: Some(service), reason: "Conflict".into(), message };
        let event = event(&link, &news, "pod", Timestamp::UNIX_EPOCH);
        assert!(event.note.unwrap().len() <= MAX_NOTE);
        assert_eq!(event.regarding.unwrap().name.as_deref(), Some("west"));
        assert_eq!(event.related.unwrap().namespace.as_deref(), Some("shop"));
    }
}
