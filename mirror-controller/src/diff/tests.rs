//! What is written for what stands, and that nothing is written twice.

use super::*;
use crate::fixtures::{Api, export, synced};
use serde_json::json;

fn mirror() -> (Mirror, Service, EndpointSlice) {
    let (mut snapshot, mut api) = (synced(&["west"]), Api::default());
    snapshot.export_seen("west", export("api", &[80]));
    api.settle(&mut snapshot);
    let (service, slice) = (api.service("api-west").clone(), api.slice("api-west").clone());
    (Mirror { service: service.clone(), slices: vec![slice.clone()] }, service, slice)
}

#[test]
fn what_stands_as_it_should_is_not_written() {
    let (desired, service, slice) = mirror();
    assert!(diff(Some(&desired), Some(&service), &[&slice]).is_empty());
    let mut noisy = service;
    noisy.metadata.managed_fields = Some(vec![]);
    noisy.status = Some(serde_json::from_value(json!({"loadBalancer": {}})).unwrap());
    noisy.metadata.finalizers = Some(vec!["somebody/else".to_owned()]);
    assert!(diff(Some(&desired), Some(&noisy), &[&slice]).is_empty(), "none of this is ours to decide");
}

#[test]
fn an_update_names_the_state_that_was_seen() {
    let (desired, mut service, slice) = mirror();
    service.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.1".to_owned()]);
    service.metadata.resource_version = Some("99".to_owned());
    match &diff(Some(&desired), Some(&service), &[&slice])[..] {
        [Change::UpdateService(update)] => {
            assert_eq!(update.metadata.resource_version.as_deref(), Some("99"));
            assert_eq!(update.spec.as_ref().unwrap().external_ips, None);
            assert_eq!(update.spec.as_ref().unwrap().cluster_ips, service.spec.as_ref().unwrap().cluster_ips);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn slices_that_should_not_be_are_removed_and_missing_ones_made() {
    let (desired, service, slice) = mirror();
    let mut other = slice.clone();
    other.metadata.name = Some("api-west-ipv6".to_owned());
    assert!(
        matches!(&diff(Some(&desired), Some(&service), &[&slice, &other])[..], [Change::DeleteSlice(seen)] if seen.key.name == "api-west-ipv6")
    );
    assert!(matches!(&diff(Some(&desired), Some(&service), &[])[..], [Change::CreateSlice(_)]));
    assert_eq!(diff(None, Some(&service), &[&slice]).len(), 2);
}

#[test]
fn a_service_that_must_become_headless_is_made_anew_and_one_that_is_going_is_waited_for() {
    let (mut desired, mut service, slice) = mirror();
    desired.service.spec.as_mut().unwrap().cluster_ip = Some("None".to_owned());
    assert!(matches!(&diff(Some(&desired), Some(&service), &[&slice])[..], [Change::DeleteService(_), ..]));
    service.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::now()));
    assert!(diff(Some(&desired), Some(&service), &[&slice]).is_empty());
}
