//! What mirroring needs of a Link.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use linkspan_core::api::{labels::NAMESPACE, link::Link};

/// A Link, as far as it decides what mirrors look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkView {
    /// Name of the Link.
    pub name: String,
    /// What its mirrors' names end in.
    pub cluster_name: String,
    /// DNS domain of the target cluster.
    pub domain: String,
    /// Namespace of the installation in the target cluster.
    pub remote_namespace: String,
    /// Who the target's gateway must prove to be.
    pub gateway_identity: String,
    /// Which exported Services are mirrored.
    pub selector: Option<LabelSelector>,
    /// Labels that are not copied.
    pub excluded_labels: Vec<String>,
    /// Annotations that are not copied.
    pub excluded_annotations: Vec<String>,
    /// When the Link was made: of two that want one name, the older gets it.
    pub created: Option<Timestamp>,
}

impl From<&Link> for LinkView {
    fn from(link: &Link) -> Self {
        let (name, spec) = (link.name_any(), &link.spec);
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        Self {
            cluster_name: given(&spec.target_cluster_name).unwrap_or_else(|| name.clone()),
            domain: spec.target_domain().to_owned(),
            remote_namespace: given(&spec.target_cluster_linkerd_namespace)
                .unwrap_or_else(|| NAMESPACE.to_owned()),
            gateway_identity: spec.gateway_identity.clone().unwrap_or_default(),
            selector: spec.selector.clone(),
            excluded_labels: spec.excluded_labels.clone().unwrap_or_default(),
            excluded_annotations: spec.excluded_annotations.clone().unwrap_or_default(),
            created: link.metadata.creation_timestamp.as_ref().map(|t| t.0),
            name,
        }
    }
}
