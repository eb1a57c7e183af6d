//! What this cluster exports: the Services that say so, and what the controller has published of them.

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use linkspan_core::api::{
    exported_service::ExportedService,
    labels::{EXPORTED, MIRRORED_SERVICE},
    names,
};
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
