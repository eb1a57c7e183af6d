//! The `Link` resource: one linked cluster, in Linkerd multicluster's form.
//!
//! All scalars are strings, as in the original; [`LinkSettings`] is the parsed form that the parts work with, read
//! once when the Link is read.

use crate::api::{condition::Condition, identity::Identity, labels::GATEWAY_PORT, names::is_dns_label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A linked cluster: where its gateway is, who it must prove to be, and which of its Services are wanted.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.linkerd.io",
    version = "v1alpha3",
    kind = "Link",
    namespaced,
    status = "LinkStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Alive","type":"string","jsonPath":".status.conditions[?(@.type==\"GatewayAlive\")].status"}"#,
    printcolumn = r#"{"name":"Synced","type":"string","jsonPath":".status.conditions[?(@.type==\"Synced\")].status"}"#,
    printcolumn = r#"{"name":"Services","type":"integer","jsonPath":".status.services.mirrored"}"#,
    printcolumn = r#"{"name":"Failing","type":"integer","jsonPath":".status.services.failing"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LinkSpec {
    /// The importer's own name for the target cluster; mirrors are named `<service>-<this>`.
    pub target_cluster_name: Option<String>,
    /// DNS domain of the target cluster, usually `cluster.local`.
    pub target_cluster_domain: Option<String>,
    /// Namespace of the installation in the target cluster.
    pub target_cluster_linkerd_namespace: Option<String>,
    /// Secret with the kubeconfig for the target cluster.
    pub cluster_credentials_secret: Option<String>,
    /// Comma-separated IP addresses or host names of the target's gateway.
    pub gateway_address: Option<String>,
    /// Port of the target's gateway.
    pub gateway_port: Option<String>,
    /// SPIFFE URI that the target's gateway must prove.
    pub gateway_identity: Option<String>,
    /// How often and how patiently the gateway is probed.
    pub probe_spec: Option<ProbeSpec>,
    /// Which of the target's exported Services are mirrored; an empty selector selects nothing.
    pub selector: Option<LabelSelector>,
    /// Accepted for compatibility; flat-network mirrors are not made.
    pub remote_discovery_selector: Option<LabelSelector>,
    /// Accepted for compatibility; federated Services are not made.
    pub federated_service_selector: Option<LabelSelector>,
    /// Annotations not copied to mirrors: keys, or `<prefix>/*`.
    pub excluded_annotations: Option<Vec<String>>,
    /// Labels not copied to mirrors: keys, or `<prefix>/*`.
    pub excluded_labels: Option<Vec<String>>,
}

/// Probing, as written in a Link. `path` and `port` are accepted and ignored: probes go through the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSpec {
    /// Ignored.
    pub path: Option<String>,
    /// Ignored.
    pub port: Option<String>,
    /// Time between probes, e.g. `1s`.
    pub period: Option<String>,
    /// Time allowed for an answer, e.g. `1s`.
    pub timeout: Option<String>,
    /// Failures in a row until the gateway counts as dead.
    pub failure_threshold: Option<String>,
}

/// What the controller says of a Link. Healthy Services are counted, not listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// `Connected`, `Synced`, `GatewayAlive`, `CredentialsValid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many Services are mirrored, and how many could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceCounts>,
    /// `host:port` of the target's gateway as its cluster publishes it now; the gateways follow these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway_addresses: Vec<String>,
    /// Round trip to the gateway in milliseconds, refreshed at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// When the client certificate for this link ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<String>,
    /// When the token for the target's API ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<String>,
    /// Services that could not be mirrored, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirror_services: Vec<ServiceStatus>,
}

/// Numbers of Services of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceCounts {
    /// Mirrors that stand.
    pub mirrored: i64,
    /// Services that were selected but could not be mirrored.
    pub failing: i64,
}

/// One Service that could not be mirrored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Who says so.
    pub controller_name: String,
    /// The Service in the target cluster.
    pub remote_ref: ObjectRef,
    /// Why: one condition of type `Mirrored`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// API group; empty for core.
    #[serde(default)]
    pub group: String,
    /// Kind, e.g. `Service`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// A Link's spec, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSettings {
    /// Host names or IP addresses to start from, in the given order.
    pub gateway_hosts: Vec<String>,
    /// Port of the target's gateway.
    pub gateway_port: u16,
    /// Who the target's gateway must prove to be.
    pub gateway_identity: Identity,
    /// Probing.
    pub probe: ProbeSettings,
}

/// Probing, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Time between probes.
    pub period: Duration,
    /// Time allowed for an answer; at most one second, so that death is seen in time.
    pub timeout: Duration,
    /// Failures in a row until the gateway counts as dead; at least one.
    pub failure_threshold: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { period: Duration::from_secs(1), timeout: Duration::from_secs(1), failure_threshold: 3 }
    }
}

/// A field of a Link that cannot be used: which, what stands there, and what should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field} is {value:?}: {expected}")]
pub struct LinkError {
    /// Path below `spec`.
    pub field: &'static str,
    /// What stands there; empty when absent.
    pub value: String,
    /// What should stand there.
    pub expected: String,
}

impl LinkSpec {
    /// Reads the fields that gateways need.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn settings(&self) -> Result<LinkSettings, LinkError> {
        let error = |field, value: &Option<String>, expected: &str| LinkError {
            field,
            value: value.clone().unwrap_or_default(),
            expected: expected.to_owned(),
        };
        let hosts = self.gateway_address.as_deref().unwrap_or_default();
        let gateway_hosts: Vec<String> =
            hosts.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect();
        let gateway_port = match self.gateway_port.as_deref().map(str::trim) {
            None | Some("") => GATEWAY_PORT,
            Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or_else(|| {
                error("gatewayPort", &self.gateway_port, "a port from 1 to 65535 is expected")
            })?,
        };
        let gateway_identity = self
            .gateway_identity
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|e| error("gatewayIdentity", &self.gateway_identity, &format!("{e}")))?;
        let probe = self.probe_spec.as_ref().map_or(Ok(ProbeSettings::default()), ProbeSpec::settings)?;
        Ok(LinkSettings { gateway_hosts, gateway_port, gateway_identity, probe })
    }

    /// Checks the fields that decide what is mirrored of the Link named `link`, and from where.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn mirroring(&self, link: &str) -> Result<(), LinkError> {
        let error = |field, value: &str, expected: &str| LinkError {
            field,
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let cluster = given(&self.target_cluster_name).unwrap_or_else(|| link.to_owned());
        if !is_dns_label(&cluster) {
            let expected = "lower-case letters, digits and '-' are expected, at most 63 and no dots: mirrors' names end in it";
            return Err(error("targetClusterName", &cluster, expected));
        }
        if let Some(namespace) = given(&self.target_cluster_linkerd_namespace).filter(|n| !is_dns_label(n)) {
            return Err(error(
                "targetClusterLinkerdNamespace",
                &namespace,
                "the name of a namespace is expected",
            ));
        }
        let names = [
            (
                "targetClusterDomain",
                &self.target_cluster_domain,
                "a DNS name such as cluster.local is expected",
            ),
            (
                "clusterCredentialsSecret",
                &self.cluster_credentials_secret,
                "the name of a Secret is expected",
            ),
        ];
        for (field, text, expected) in names {
            if let Some(text) = given(text).filter(|text| !text.split('.').all(is_dns_label)) {
                return Err(error(field, &text, expected));
            }
        }
        let rules = self.selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
        for rule in rules {
            let needs_values = match rule.operator.as_str() {
                "In" | "NotIn" => true,
                "Exists" | "DoesNotExist" => false,
                other => {
                    let expected = "In, NotIn, Exists or DoesNotExist is expected";
                    return Err(error("selector.matchExpressions.operator", other, expected));
                }
            };
            if needs_values == rule.values.as_ref().is_none_or(Vec::is_empty) {
                let expected = "In and NotIn need values, Exists and DoesNotExist must have none";
                return Err(error("selector.matchExpressions.values", &rule.key, expected));
            }
        }
        Ok(())
    }

    /// The Secret with the credentials for the target cluster of the Link named `link`.
    pub fn credentials_secret(&self, link: &str) -> String {
        self.cluster_credentials_secret
            .clone()
            .filter(|s| !s.is_empty())
            .unwrap_or_else(|| crate::api::names::credentials_secret(link))
    }

    /// The DNS domain of the target cluster.
    pub fn target_domain(&self) -> &str {
        self.target_cluster_domain.as_deref().filter(|d| !d.is_empty()).unwrap_or("cluster.local")
    }
}

impl ProbeSpec {
    fn settings(&self) -> Result<ProbeSettings, LinkError> {
        let default = ProbeSettings::default();
        let time = |field, text: &Option<String>, default| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(given) => parse_duration(given).filter(|d| !d.is_zero()).ok_or_else(|| LinkError {
                field,
                value: given.to_owned(),
                expected: "a positive duration such as 1s or 500ms is expected".to_owned(),
            }),
        };
        let failure_threshold = match self.failure_threshold.as_deref() {
            None | Some("") => default.failure_threshold,
            Some(given) => given.parse().ok().filter(|n| *n > 0).ok_or_else(|| LinkError {
                field: "probeSpec.failureThreshold",
                value: given.to_owned(),
                expected: "a whole number of at least 1 is expected".to_owned(),
            })?,
        };
        Ok(ProbeSettings {
            period: time("probeSpec.period", &self.period, default.period)?,
            timeout: time("probeSpec.timeout", &self.timeout, default.timeout)?.min(default.timeout),
            failure_threshold,
        })
    }
}

/// Reads a duration in Go's form (`1s`, `1m30s`, `500ms`) or as a whole number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(u64::from(number) * milliseconds))?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
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
        assert_eq!(
            settings.probe.timeout,
            Duration::from_secs(1),
            "the timeout in force is at most a second"
        );
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

        #[test]
        fn any_text_is_a_duration_or_none(text in "[0-9a-z]{0,12}") {
            let milliseconds = parse_duration(&text).and_then(|duration| u32::try_from(duration.as_millis()).ok());
            if let Some(milliseconds) = milliseconds {
                let written = parse_duration(&format!("{milliseconds}ms"));
                prop_assert_eq!(written, Some(Duration::from_millis(u64::from(milliseconds))));
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

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        for text in ["", "s", "1x", "1s2", "-1s", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
