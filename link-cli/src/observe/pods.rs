//! Our pods, and what their admin ports say, asked through the API server.

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use linkspan_core::api::labels::{ADMIN_PORT, COMPONENT};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for one pod's answer: a pod on a node that is gone must not hold up everything else.
const ANSWER: Duration = Duration::from_secs(5);

/// One of our pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OurPod {
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// Its first address.
    pub ip: String,
    /// Whether it runs, so that asking it makes sense.
    pub running: bool,
}

/// What came back from a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Its answer.
    Answer(String),
    /// The user may not ask pods.
    NotAllowed,
    /// It did not answer, and why.
    Silent(String),
}

/// The pods of one component, by name.
///
/// # Errors
/// When pods cannot be listed.
pub async fn list(cluster: &Cluster, component: &str) -> anyhow::Result<Vec<OurPod>> {
    let params = ListParams::default().labels(&format!("{COMPONENT}={component}"));
    let pods = cluster.list(&cluster.ours::<Pod>(), &params, "Pods").await?;
    let mut pods: Vec<OurPod> = pods.into_iter().map(our_pod).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

fn our_pod(pod: Pod) -> OurPod {
    let status = pod.status.unwrap_or_default();
    OurPod {
        name: pod.metadata.name.unwrap_or_default(),
        node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
        ip: status.pod_ip.unwrap_or_default(),
        running: status.phase.as_deref() == Some("Running"),
    }
}

/// What `pod` answers to `GET <path>` at its admin port.
pub async fn ask(cluster: &Cluster, pod: &str, path: &str) -> Asked {
    let uri = format!("/api/v1/namespaces/{}/pods/{pod}:{ADMIN_PORT}/proxy{path}", cluster.namespace);
    let Ok(request) = http::Request::get(uri).body(vec![]) else {
        return Asked::Silent(format!("{pod} cannot be part of an address"));
    };
    match timeout(ANSWER, cluster.client.request_text(request)).await {
        Ok(Ok(text)) => Asked::Answer(text),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Asked::NotAllowed,
        Ok(Err(kube::Error::Api(status))) => Asked::Silent(status.message),
        Ok(Err(e)) => Asked::Silent(format!("{:#}", cluster.explain(&format!("asking pod {pod}"), &e))),
        Err(_) => Asked::Silent(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
