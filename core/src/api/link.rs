//! The `Link` resource: one linked cluster, in Linkerd multicluster's form.
//!
//! All scalars are strings, as in the original; [`LinkSettings`] is the parsed form that the parts work with, read
//! once when the Link is read.

mod settings;

pub use settings::{LinkError, LinkSettings, ProbeSettings};

use crate::api::condition::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
