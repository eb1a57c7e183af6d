//! When the installation itself is being deleted, splits are given back while there is still somebody to do it.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{Api, Client};
use linkspan_core::{
    api::labels::CONTROLLER,
    process::split_undo::{Patience, undo_splits},
};
use std::time::Duration;
use tokio::time::timeout;

/// Longest time until it is known whether the installation goes.
const ASK: Duration = Duration::from_millis(1500);
/// Longest time that giving back may take; the process is killed soon after.
const UNDO: Duration = Duration::from_secs(6);

/// Gives all splits back, if the controller's Deployment or the installation's namespace is being deleted. Called when
/// the process was asked to end.
pub async fn leave(client: &Client, namespace: &str) {
    if !matches!(timeout(ASK, is_deleted(client, namespace)).await, Ok(true)) {
        return;
    }
    tracing::info!("the installation is being deleted; split Services are given back");
    match timeout(UNDO, undo_splits(client, Patience::short())).await {
        Ok(Ok(services)) => tracing::info!(?services, "split Services were given back"),
        Ok(Err(error)) => tracing::error!(error, "split Services could not all be given back"),
        Err(_) => tracing::error!("split Services could not all be given back in time"),
    }
}

/// Whether the installation is going. What cannot be asked any more is not known to go.
async fn is_deleted(client: &Client, namespace: &str) -> bool {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let namespaces = Api::<Namespace>::all(client.clone());
    let (deployment, namespace) =
        tokio::join!(deployments.get_metadata_opt(CONTROLLER), namespaces.get_metadata_opt(namespace));
    let deployment = deployment.map(|d| d.is_none_or(|d| d.metadata.deletion_timestamp.is_some()));
    let namespace = namespace.map(|n| n.is_none_or(|n| n.metadata.deletion_timestamp.is_some()));
    deployment.unwrap_or(false) || namespace.unwrap_or(false)
}
