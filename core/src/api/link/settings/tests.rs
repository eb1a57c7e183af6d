//! What is read of a Link, and what is refused by name.

use super::*;
use crate::api::link::Link;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::prelude::*;

fn spec() -> LinkSpec {
    LinkSpec {
        gateway_address: Some("10.0.0.1, gateway.example".into()),
        gateway_port: Some("4143".into()),
        gateway_identity: Some("spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".into()),
        probe_spec: Some(ProbeSpec {
            period: Some("1500ms".into()),
            timeout: Some("30s".into()),
            failure_threshold: Some("2".into()),
            ..ProbeSpec::default()
        }),
        ..LinkSpec::default()
    }
}

fn probe(spec: &mut LinkSpec) -> &mut ProbeSpec {
    spec.probe_spec.as_mut().unwrap()
}

#[test]
fn a_link_is_read() {
    let settings = spec().settings().unwrap();
    assert_eq!(settings.gateway_hosts, ["10.0.0.1", "gateway.example"]);
    assert_eq!(settings.gateway_port, 4143);
    assert_eq!(settings.probe.period, Duration::from_millis(1500));
    assert_eq!(settings.probe.timeout, Duration::from_secs(1), "the timeout in force is at most a second");
    assert_eq!(settings.probe.failure_threshold, 2);
}

#[test]
fn each_field_that_cannot_be_used_is_named() {
    let broken = |change: fn(&mut LinkSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.settings().unwrap_err().field
    };
    assert_eq!(broken(|s| s.gateway_port = Some("70000".into())), "gatewayPort");
    assert_eq!(broken(|s| s.gateway_identity = None), "gatewayIdentity");
    assert_eq!(broken(|s| probe(s).period = Some("soon".into())), "probeSpec.period");
    assert_eq!(broken(|s| probe(s).timeout = Some("0s".into())), "probeSpec.timeout");
    assert_eq!(broken(|s| probe(s).failure_threshold = Some("-1".into())), "probeSpec.failureThreshold");
}

proptest! {
    #[test]
    fn a_link_that_is_printed_is_read_back(
        addresses in proptest::option::of("[a-z0-9.,-]{0,40}"),
        port in proptest::option::of(1_u16..),
        seconds in 1_u32..1000,
        labels in proptest::collection::btree_map("[a-z./]{1,20}", "[a-z0-9]{0,10}", 0..4),
        excluded in proptest::option::of(proptest::collection::vec("[a-z./*]{1,20}", 0..4)),
    ) {
        let spec = LinkSpec {
            gateway_address: addresses,
            gateway_port: port.map(|port| port.to_string()),
            probe_spec: Some(ProbeSpec { period: Some(format!("{seconds}s")), ..ProbeSpec::default() }),
            selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
            excluded_labels: excluded,
            ..spec()
        };
        let settings = spec.settings().unwrap();
        prop_assert_eq!(settings.gateway_port, port.unwrap_or(GATEWAY_PORT));
        prop_assert_eq!(settings.probe.period, Duration::from_secs(u64::from(seconds)));
        let link = Link::new("west", spec);
        let text = serde_json::to_string(&link).unwrap();
        prop_assert_eq!(serde_json::from_str::<Link>(&text).unwrap(), link);
    }

    #[test]
    fn whatever_stands_in_a_link_is_read_or_refused_by_name(
        address in ".{0,60}", port in ".{0,8}", identity in ".{0,80}", period in ".{0,12}", threshold in ".{0,6}",
    ) {
        let spec = LinkSpec {
            gateway_address: Some(address),
            gateway_port: Some(port),
            gateway_identity: Some(identity),
            probe_spec: Some(ProbeSpec {
                period: Some(period),
                failure_threshold: Some(threshold),
                ..ProbeSpec::default()
            }),
            ..LinkSpec::default()
        };
        match spec.settings() {
            Ok(settings) => prop_assert!(settings.gateway_port > 0 && !settings.probe.period.is_zero()),
            Err(error) => prop_assert!(!error.field.is_empty()),
        }
    }
}

#[test]
fn each_field_that_decides_what_is_mirrored_is_checked() {
    assert_eq!(spec().mirroring("west"), Ok(()));
    let broken = |link: &str, change: fn(&mut LinkSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.mirroring(link).unwrap_err().field
    };
    let rule = |spec: &mut LinkSpec, operator: &str, values: Option<Vec<String>>| {
        let rule = LabelSelectorRequirement { key: "a".into(), operator: operator.into(), values };
        spec.selector =
            Some(LabelSelector { match_expressions: Some(vec![rule]), ..LabelSelector::default() });
    };
    let broken_rule = |operator, values| {
        let mut spec = spec();
        rule(&mut spec, operator, values);
        spec.mirroring("west").unwrap_err().field
    };
    assert_eq!(broken("west.example", |_| {}), "targetClusterName");
    assert_eq!(broken("w", |s| s.target_cluster_name = Some("West".into())), "targetClusterName");
    assert_eq!(broken("w", |s| s.target_cluster_domain = Some("a b".into())), "targetClusterDomain");
    assert_eq!(
        broken("w", |s| s.target_cluster_linkerd_namespace = Some("a.b".into())),
        "targetClusterLinkerdNamespace"
    );
    assert_eq!(
        broken("w", |s| s.cluster_credentials_secret = Some("../x".into())),
        "clusterCredentialsSecret"
    );
    assert_eq!(broken_rule("Near", None), "selector.matchExpressions.operator");
    assert_eq!(broken_rule("In", None), "selector.matchExpressions.values");
    assert_eq!(broken_rule("Exists", Some(vec!["x".into()])), "selector.matchExpressions.values");
}
