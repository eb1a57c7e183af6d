//! What `install` and `upgrade` must know of an installation that stands: who made it, which version, which values.

use crate::{cluster::Cluster, manifests::system, observe::installation};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::ConfigMap,
        rbac::v1::{ClusterRoleBinding, Subject},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::ResourceExt;
use linkspan_core::api::labels::CONTROLLER;
use serde_json::{Value, json};

/// Annotation by which Helm marks what belongs to a release.
const HELM_RELEASE: &str = "meta.helm.sh/release-name";

/// An installation, or what there is of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Whether the controller's Deployment is in the namespace.
    pub installed: bool,
    /// Helm's release that it belongs to.
    pub helm_release: Option<String>,
    /// Version of the controller: its image's tag.
    pub version: String,
    /// The values it was installed with, where they were kept.
    pub values: Option<Value>,
    /// Namespace of the installation that owns what a cluster has once.
    pub owner_namespace: Option<String>,
    /// The definitions that we bring, as far as they are there.
    pub definitions: Vec<Definition>,
}

/// A definition that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Value,
    /// Versions in which objects may be stored.
    pub stored_versions: Vec<String>,
}

/// Looks at the installation in the cluster.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Standing> {
    let deployment = cluster.get(&cluster.ours::<Deployment>(), CONTROLLER, "Deployment").await?;
    let binding = cluster.get(&cluster.all::<ClusterRoleBinding>(), CONTROLLER, "ClusterRoleBinding").await?;
    let map = cluster.get(&cluster.ours::<ConfigMap>(), system::VALUES_CONFIG_MAP, "ConfigMap").await?;
    let subject = binding.and_then(|binding| binding.subjects.unwrap_or_default().into_iter().next());
    Ok(Standing {
        installed: deployment.is_some(),
        helm_release: deployment.as_ref().and_then(|d| d.annotations().get(HELM_RELEASE).cloned()),
        version: deployment.as_ref().map(|d| installation::workload(d).version).unwrap_or_default(),
        values: map
            .and_then(|map| map.data?.remove(system::VALUES_KEY))
            .and_then(|text| serde_json::from_str(&text).ok()),
        owner_namespace: subject.and_then(|subject: Subject| subject.namespace),
        definitions: definitions(cluster).await?,
    })
}

async fn definitions(cluster: &Cluster) -> anyhow::Result<Vec<Definition>> {
    let api = cluster.all::<CustomResourceDefinition>();
    let mut found = vec![];
    for definition in system::definitions().into_iter().chain(system::smi_definitions()) {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(crd) = cluster.get(&api, name, "CustomResourceDefinition").await? {
            found.push(Definition {
                name: name.to_owned(),
                labels: json!(crd.metadata.labels),
                stored_versions: crd.status.and_then(|status| status.stored_versions).unwrap_or_default(),
            });
        }
    }
    Ok(found)
}
