//! What the gateway pods did for splits within the last minute, read through the API server.

use crate::{cluster::Cluster, manifests::workloads::GATEWAY_COMPONENT};
use anyhow::anyhow;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use linkspan_core::api::{
    labels::{ADMIN_PORT, COMPONENT},
    split_report::{BackendReport, SplitReport},
};

/// The reports of all gateway pods together.
///
/// # Errors
/// When pods cannot be listed, or none of them can be asked.
pub async fn reports(cluster: &Cluster) -> anyhow::Result<Vec<BackendReport>> {
    let params = ListParams::default().labels(&format!("{COMPONENT}={GATEWAY_COMPONENT}"));
    let pods = cluster.list(&cluster.ours::<Pod>(), &params, "gateway pods").await?;
    let running = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    let names: Vec<String> =
        pods.iter().filter(|p| running(p)).filter_map(|p| p.metadata.name.clone()).collect();
    let asked = futures::future::join_all(names.iter().map(|pod| report_of(cluster, pod))).await;
    let mut all = vec![];
    let mut failed = None;
    let mut answered = false;
    for report in asked {
        match report {
            Ok(report) => {
                answered = true;
                all.extend(report.backends);
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !answered => Err(anyhow!(
            "no gateway pod in namespace {} of context {} can be asked: {error}",
            cluster.namespace,
            cluster.context
        )),
        _ => Ok(all),
    }
}

async fn report_of(cluster: &Cluster, pod: &str) -> kube::Result<SplitReport> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:{ADMIN_PORT}/proxy/splits", cluster.namespace);
    let request = http::Request::get(path).body(vec![]).map_err(kube::Error::HttpError)?;
    cluster.client.request(request).await
}
