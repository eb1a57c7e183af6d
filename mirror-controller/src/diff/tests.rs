//! What is written for what stands, and that nothing is written twice.

use super::*;
use crate::fixtures::{Api, export, standing, synced};
use serde_json::json;

fn key() -> Key {
    Key::new("default", "api-west")
}

fn mirror() -> (Mirror, Service, EndpointSlice) {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", &export("api", &[80]));
    api.settle(&mut snapshot);
    let (service, slice) = (api.service("api-west").clone(), api.slice("api-west").clone());
    (Mirror { service: service.clone(), slices: vec![slice.clone()] }, service, slice)
}

fn changes(desired: Option<&Mirror>, service: &Service, slices: &[&EndpointSlice]) -> Vec<Change> {
    let slices: Vec<StandingSlice> = slices.iter().map(|s| StandingSlice::of(s).1).collect();
    diff(&key(), desired, Some(&standing(service)), &slices)
}

#[test]
fn what_stands_as_it_should_is_not_written() {
    let (desired, service, slice) = mirror();
    assert!(changes(Some(&desired), &service, &[&slice]).is_empty());
    let mut noisy = service;
    noisy.metadata.managed_fields = Some(vec![]);
    noisy.status = Some(serde_json::from_value(json!({"loadBalancer": {}})).unwrap());
    noisy.metadata.finalizers = Some(vec!["somebody/else".to_owned()]);
    assert!(changes(Some(&desired), &noisy, &[&slice]).is_empty(), "none of this is ours to decide");
}

#[test]
fn an_update_names_the_state_that_was_seen_and_keeps_what_others_wrote() {
    let (desired, mut service, slice) = mirror();
    service.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.1".to_owned()]);
    service.metadata.resource_version = Some("99".to_owned());
    service.metadata.finalizers = Some(vec!["somebody/else".to_owned()]);
    match &changes(Some(&desired), &service, &[&slice])[..] {
        [Change::UpdateService(update)] => {
            assert_eq!(update.metadata.resource_version.as_deref(), Some("99"));
            assert_eq!(update.metadata.finalizers, service.metadata.finalizers);
            let (is, was) = (update.spec.as_ref().unwrap(), service.spec.as_ref().unwrap());
            assert_eq!(is.external_ips, None);
            assert_eq!(
                (&is.cluster_ip, &is.cluster_ips, &is.ip_families),
                (&was.cluster_ip, &was.cluster_ips, &was.ip_families)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_field_of_a_slice_that_we_decide_is_put_right() {
    let (desired, service, slice) = mirror();
    let edits: [fn(&mut EndpointSlice); 4] = [
        |s| s.metadata.labels = None,
        |s| s.metadata.annotations = None,
        |s| s.ports = None,
        |s| s.endpoints.clear(),
    ];
    for edit in edits {
        let mut edited = slice.clone();
        edit(&mut edited);
        let changes = changes(Some(&desired), &service, &[&edited]);
        let [Change::UpdateSlice(update)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&update.ports, &update.endpoints), (&slice.ports, &slice.endpoints));
    }
}

#[test]
fn slices_that_should_not_be_are_removed_and_missing_ones_made() {
    let (desired, service, slice) = mirror();
    let mut other = slice.clone();
    other.metadata.name = Some("api-west-ipv6".to_owned());
    assert!(
        matches!(&changes(Some(&desired), &service, &[&slice, &other])[..], [Change::DeleteSlice(seen)] if seen.key.name == "api-west-ipv6")
    );
    assert!(matches!(&changes(Some(&desired), &service, &[])[..], [Change::CreateSlice(_)]));
    assert_eq!(changes(None, &service, &[&slice]).len(), 2);
}

#[test]
fn a_service_that_must_become_headless_is_made_anew_and_one_that_is_going_is_waited_for() {
    let (mut desired, mut service, slice) = mirror();
    desired.service.spec.as_mut().unwrap().cluster_ip = Some("None".to_owned());
    assert!(matches!(&changes(Some(&desired), &service, &[&slice])[..], [Change::DeleteService(_), ..]));
    service.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::now()));
    assert!(changes(Some(&desired), &service, &[&slice]).is_empty());
}
