//! What this cluster exports: the Services that say so, what the controller has published of them, and which namespaces
//! may export.

use crate::{cluster::Cluster, manifests::object::Key};
use anyhow::bail;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use linkspan_core::api::{
    exported_service::ExportedService,
    labels::{CONTROLLER, EXPORTED, MIRRORED_SERVICE},
    names,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// What should be published, and what is, both as `<namespace>.<service>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Services that carry the label.
    pub labelled: BTreeSet<String>,
    /// Services that linked clusters see.
    pub published: BTreeSet<String>,
}

/// Looks at both.
///
/// # Errors
/// When Services or what is published cannot be listed.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Exports> {
    let params = ListParams::default().labels(&format!("{EXPORTED}=true,!{MIRRORED_SERVICE}"));
    let (services, exported) = (cluster.all::<Service>(), cluster.ours::<ExportedService>());
    let all = ListParams::default();
    let (labelled, published) =
        tokio::join!(services.list_metadata(&params), cluster.list(&exported, &all, "ExportedServices"));
    let labelled = labelled.map_err(|e| cluster.explain("listing Services", &e))?;
    let name = |service: kube::core::PartialObjectMeta<Service>| {
        let metadata = service.metadata;
        names::export_name(&metadata.namespace.unwrap_or_default(), &metadata.name.unwrap_or_default())
    };
    Ok(Exports {
        labelled: labelled.items.into_iter().map(name).collect(),
        published: published?.into_iter().filter_map(|export| export.metadata.name).collect(),
    })
}

/// The selector of the namespaces whose Services the controller publishes; none where it publishes all.
///
/// # Errors
/// When there is no controller, or it may not be read.
pub async fn gate(cluster: &Cluster) -> anyhow::Result<Option<String>> {
    let key = Key::new("apps/v1", "Deployment", &cluster.namespace, CONTROLLER);
    let Some(found) = cluster.find(&key).await? else {
        let context = &cluster.context;
        bail!(
            "Linkspan is not installed in context {context}, so that nobody would publish the Service: run `link-cli --context {context} install | kubectl --context {context} apply -f -`"
        );
    };
    Ok(gate_of(&found.data))
}

/// The gate of a Deployment: its own flag, which also stands where the values are not known.
fn gate_of(deployment: &Value) -> Option<String> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array()?;
    let mut flags = containers.iter().filter_map(|c| c["args"].as_array()).flatten();
    let gate = flags.find_map(|flag| flag.as_str()?.strip_prefix("--export-namespaces="))?;
    (!gate.is_empty()).then(|| gate.to_owned())
}

/// Whether `gate` selects the namespace; the API server is asked, as the controller asks it.
///
/// # Errors
/// When namespaces cannot be listed.
pub async fn may_export(cluster: &Cluster, namespace: &str, gate: &str) -> anyhow::Result<bool> {
    let one = ListParams::default().labels(gate).fields(&format!("metadata.name={namespace}"));
    Ok(!cluster.list(&cluster.all::<Namespace>(), &one, "namespaces").await?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_gate_is_the_controllers_flag() {
        let deployment =
            |args: Value| json!({"spec": {"template": {"spec": {"containers": [{"args": args}]}}}});
        let gated = deployment(json!(["--log-level=info", "--export-namespaces=team in (a,b)"]));
        assert_eq!(gate_of(&gated).as_deref(), Some("team in (a,b)"));
        assert_eq!(gate_of(&deployment(json!(["--log-level=info"]))), None);
        assert_eq!(gate_of(&deployment(json!(["--export-namespaces="]))), None, "all namespaces");
        assert_eq!(gate_of(&json!({})), None);
    }
}
