//! The `ExportedService` resource: what a cluster lets linked clusters see of one exported Service.
//!
//! The exporting cluster's controller writes one per exported Service in the installation's namespace, named
//! `<namespace>.<service>`; linked clusters may read these and nothing else of its Services.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What linked clusters see of one exported Service.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "linkspan.dev",
    version = "v1alpha1",
    kind = "ExportedService",
    plural = "exportedservices",
    singular = "exportedservice",
    shortname = "exsvc",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Namespace","type":"string","jsonPath":".spec.namespace"}"#,
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ExportedServiceSpec {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Resource version of the Service.
    #[serde(default)]
    pub resource_version: String,
    /// The Service's labels, by which Links select.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The Service's annotations, less those that are never copied.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Whether the Service has no cluster IP.
    #[serde(default)]
    pub headless: bool,
    /// Exported ports.
    #[serde(default)]
    pub ports: Vec<ExportedPort>,
    /// Pods of a headless Service that have a host name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ExportedMember>,
}

/// One port of an exported Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportedPort {
    /// Name; empty for a Service's only port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Port of the Service.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`; only `TCP` crosses a link.
    pub protocol: String,
    /// Application protocol, as the Service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// Port of the pods, where all slices agree on one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// Whether at least one endpoint takes traffic on this port.
    pub ready: bool,
}

/// One pod of a headless Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportedMember {
    /// Host name within the Service, e.g. `web-0`.
    pub hostname: String,
    /// Whether it takes traffic.
    pub ready: bool,
}
