//! What happens to the clusters: processes killed, Deployments scaled, an API server paused, nodes lost.

use super::load::now;
use anyhow::{Context, Result, ensure};
use linkspan_core::api::labels::{CONTROLLER, GATEWAY, NAMESPACE};
use linkspan_tests::{
    Program,
    clusters::{self, COMMAND, Cluster},
    eventually, tools,
};
use std::time::Duration;

/// Time a node takes to be back, at most.
const NODE: Duration = Duration::from_secs(300);
/// Time pods take to come or go, at most.
const PODS: Duration = Duration::from_secs(180);

/// One pod, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    container: String,
    ready: bool,
    /// How often its container was started again. The kubelet takes its time from the second one on.
    pub(crate) restarts: u32,
}

/// The pods of `namespace` that `selector` names and that are not leaving.
pub(crate) async fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let row = "{.metadata.name} {.spec.nodeName} {.status.containerStatuses[0].containerID} \
               {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount} \
               {.metadata.deletionTimestamp}";
    let rows = format!("jsonpath={{range .items[*]}}{row}{{\"\\n\"}}{{end}}");
    let list = cluster.kubectl(["-n", namespace, "get", "pods", "-l", selector, "-o", &rows]);
    let list = list.run(COMMAND).await?.success()?;
    let pod = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, node, container, ready, restarts] = words[..] else { return None };
        let container = container.strip_prefix("containerd://")?.to_owned();
        let (name, node, ready) = (name.to_owned(), node.to_owned(), ready == "true");
        Some(Pod { name, node, container, ready, restarts: restarts.parse().ok()? })
    };
    Ok(list.lines().filter_map(pod).collect())
}

/// The gateway pods of a cluster.
pub(crate) async fn gateways(cluster: &Cluster) -> Result<Vec<Pod>> {
    pods(cluster, NAMESPACE, "app.kubernetes.io/component=gateway").await
}

/// The names of the gateway pods that Kubernetes holds for ready.
pub(crate) async fn ready(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(gateways(cluster).await?.into_iter().filter(|p| p.ready).map(|p| p.name).collect())
}

/// Sends `signal` to the process of a pod, as its node sees it; answers when, in milliseconds since 1970.
pub(crate) async fn signal(pod: &Pod, signal: &str) -> Result<i64> {
    let script = format!(
        "pid=$(ctr -n k8s.io tasks ls | awk '$1 == \"{}\" {{ print $2 }}'); kill -{signal} $pid; date +%s%3N",
        pod.container
    );
    on_node(&pod.node, &script).await?.trim().parse().context("no time came back")
}

/// Runs `script` on a node.
async fn on_node(node: &str, script: &str) -> Result<String> {
    docker(&["exec", node, "sh", "-ec", script]).await
}

async fn docker(args: &[&str]) -> Result<String> {
    Program::new("docker").args(args).run(NODE).await?.success()
}

/// Replaces all pods of `deployment` as `kubectl rollout restart` does, and waits until the last old one is gone.
pub(crate) async fn restart(cluster: &Cluster, deployment: &str) -> Result<()> {
    let name = format!("deployment/{deployment}");
    cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", &name]).run(COMMAND).await?.success()?;
    cluster.rolled_out(deployment).await?;
    none_leaves(cluster).await;
    Ok(())
}

/// Waits until no pod of the installation is leaving any more.
pub(crate) async fn none_leaves(cluster: &Cluster) {
    eventually(PODS, "leaving pods to be gone", async || {
        let all = ["-n", NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}"];
        let leaving = cluster.kubectl(all).run(COMMAND).await?.success()?;
        ensure!(leaving.trim().is_empty(), "{leaving}");
        Ok(())
    })
    .await;
}

/// Takes away all gateways of a cluster, without giving them time to leave; answers when the last was killed, in
/// milliseconds since 1970.
pub(crate) async fn lose_gateways(cluster: &Cluster) -> Result<i64> {
    let pods = gateways(cluster).await?;
    let name = format!("deployment/{GATEWAY}");
    cluster.kubectl(["-n", NAMESPACE, "scale", &name, "--replicas=0"]).run(COMMAND).await?.success()?;
    let mut killed = now();
    for pod in pods {
        killed = signal(&pod, "KILL").await?;
    }
    Ok(killed)
}

/// Scales a Deployment of the installation, and waits until its pods are there and ready, or leaving.
pub(crate) async fn scale(cluster: &Cluster, deployment: &str, replicas: usize) -> Result<()> {
    let (name, count) = (format!("deployment/{deployment}"), format!("--replicas={replicas}"));
    cluster.kubectl(["-n", NAMESPACE, "scale", &name, &count]).run(COMMAND).await?.success()?;
    let component = deployment.trim_start_matches("linkspan-");
    let selector = format!("app.kubernetes.io/component={component}");
    eventually(PODS, format!("{replicas} pods of {deployment}"), async || {
        let pods = pods(cluster, NAMESPACE, &selector).await?;
        ensure!(pods.len() == replicas && pods.iter().all(|p| p.ready), "{pods:?}");
        Ok(())
    })
    .await;
    Ok(())
}

/// The controller pod that leads.
pub(crate) async fn leader(cluster: &Cluster) -> Result<Pod> {
    let holder = ["-n", NAMESPACE, "get", "lease", CONTROLLER, "-o", "jsonpath={.spec.holderIdentity}"];
    let holder = cluster.kubectl(holder).run(COMMAND).await?.success()?;
    let pods = pods(cluster, NAMESPACE, "app.kubernetes.io/component=mirror-controller").await?;
    pods.into_iter().find(|p| p.name == holder).with_context(|| format!("{holder:?} is no controller pod"))
}

/// Stops a cluster's API server for `time`, without ending it. The kubelet beside it would, so it is stopped, too.
pub(crate) async fn pause_api_server(cluster: &Cluster, time: Duration) -> Result<()> {
    let node = format!("{}-control-plane", cluster.context.trim_start_matches("cluster-"));
    on_node(&node, "systemctl stop kubelet; kill -STOP $(pidof kube-apiserver)").await?;
    tokio::time::sleep(time).await;
    on_node(&node, "kill -CONT $(pidof kube-apiserver); systemctl start kubelet").await?;
    Ok(())
}

/// Ends a node as a power cut does; answers when, in milliseconds since 1970.
pub(crate) async fn kill_node(node: &str) -> Result<i64> {
    docker(&["kill", node]).await?;
    Ok(now())
}

/// Starts a node again, and waits until its cluster is as before.
pub(crate) async fn start_node(cluster: &Cluster, node: &str) -> Result<()> {
    docker(&["start", node]).await?;
    let ready = ["wait", "node", "--all", "--for=condition=Ready", "--timeout=200s"];
    cluster.kubectl(ready).run(NODE).await?.success()?;
    // A node that starts has lost its routes.
    let clusters = clusters::EAST_WEST.map(|context| context.trim_start_matches("cluster-"));
    let routes = tools::repository().join("tests/testbed/routes.sh");
    Program::new(routes).args(clusters).run(NODE).await?.success()?;
    eventually(NODE, "all pods of the installation to be ready", async || {
        let pods = pods(cluster, NAMESPACE, "app.kubernetes.io/part-of=linkspan").await?;
        ensure!(pods.len() == 4 && pods.iter().all(|p| p.ready), "{pods:?}");
        Ok(())
    })
    .await;
    Ok(())
}
