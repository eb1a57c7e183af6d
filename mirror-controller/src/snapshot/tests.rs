//! What is decided anew when something changes on either side.

use super::*;
use crate::fixtures::{export, link, service_gone, service_seen, synced};
use k8s_openapi::api::core::v1::Service;

fn dirty(snapshot: &mut Snapshot) -> Vec<String> {
    let mut names: Vec<String> = snapshot.take_dirty(usize::MAX).into_iter().map(|key| key.name).collect();
    names.sort();
    names
}

#[test]
fn a_change_marks_the_names_it_can_matter_to_and_no_other() {
    let mut snapshot = synced(&["west", "north"]);
    snapshot.export_seen("west", &export("api", &[80]));
    snapshot.export_seen("north", &export("web", &[80]));
    assert_eq!(dirty(&mut snapshot), ["api-west", "web-north"]);
    snapshot.export_seen("west", &export("api", &[80]));
    assert!(dirty(&mut snapshot).is_empty(), "no news");
    snapshot.export_seen("west", &export("api", &[81]));
    assert_eq!(dirty(&mut snapshot), ["api-west"]);
    snapshot.namespace_gone("default");
    assert_eq!(dirty(&mut snapshot), ["api-west", "web-north"]);
    snapshot.link_gone("west");
    assert_eq!(dirty(&mut snapshot), ["api-west"]);
    assert_eq!(snapshot.claims(&Key::new("default", "api-west")).count(), 0);
}

#[test]
fn a_new_list_marks_what_appeared_changed_and_vanished() {
    let mut snapshot = synced(&["west"]);
    snapshot.exports_reset("west", vec![export("a", &[1]), export("b", &[1]), export("c", &[1])]);
    dirty(&mut snapshot);
    snapshot.exports_reset("west", vec![export("b", &[2]), export("c", &[1]), export("d", &[1])]);
    assert_eq!(dirty(&mut snapshot), ["a-west", "b-west", "d-west"]);
}

#[test]
fn a_link_that_selects_otherwise_is_claimed_anew() {
    let mut snapshot = synced(&["west"]);
    snapshot.export_seen("west", &export("api", &[80]));
    dirty(&mut snapshot);
    snapshot.link_seen(LinkView { selector: None, ..link("west") });
    assert_eq!(dirty(&mut snapshot), ["api-west"]);
    assert_eq!(snapshot.counts("west"), Counts::default());
    snapshot.link_seen(LinkView { cluster_name: "w".to_owned(), ..link("west") });
    assert_eq!(dirty(&mut snapshot), ["api-w"]);
}

#[test]
fn an_older_state_and_the_end_of_an_earlier_object_are_no_news() {
    let service = |uid: &str, version: &str| -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "api-west", "namespace": "default", "uid": uid, "resourceVersion": version}
        }))
        .unwrap()
    };
    let key = Key::new("default", "api-west");
    let mut snapshot = synced(&["west"]);
    service_seen(&mut snapshot, service("b", "20"));
    service_seen(&mut snapshot, service("b", "19"));
    assert_eq!(&*snapshot.service(&key).unwrap().state.version, "20");
    service_gone(&mut snapshot, &service("a", "21"));
    assert!(snapshot.service(&key).is_some());
    service_gone(&mut snapshot, &service("b", "22"));
    assert!(snapshot.service(&key).is_none());
}

#[test]
fn what_is_counted_is_what_was_judged() {
    let mut snapshot = synced(&["west"]);
    let key = Key::new("default", "api-west");
    snapshot.export_seen("west", &export("api", &[80]));
    let origin = snapshot.claims(&key).next().unwrap().clone();
    assert_eq!(snapshot.counts("west"), Counts { pending: 1, ..Counts::default() });
    snapshot.judge(&key, &origin, Verdict::Mirrored);
    assert_eq!(snapshot.counts("west"), Counts { mirrored: 1, ..Counts::default() });
    assert_eq!(snapshot.troubles("west").count(), 0);
    snapshot.judge(&key, &origin, Verdict::Failed(Failure::new("Conflict", "")));
    assert_eq!(snapshot.counts("west"), Counts { failing: 1, conflicts: 1, ..Counts::default() });
    snapshot.judge(&key, &origin, Verdict::Mirrored);
    snapshot.export_gone("west", &Key::new("default", "api"));
    assert_eq!(snapshot.counts("west"), Counts::default());
}
