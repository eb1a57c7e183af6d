//! The load: servers in west, eight clients in east that ask through the mirror, two that hold connections, and two
//! that ask once a second.

use super::events::{pods, signal};
use anyhow::{Context, Result, ensure};
use linkspan_core::process::clock::Clock;
use linkspan_tests::{
    clusters::{COMMAND, Cluster, Clusters, system::image_version},
    eventually,
    load::report::Report,
};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// Requests a second of one client; eight of them make 560.
const RATE: u32 = 70;
const WORKERS: u32 = 14;
/// Time until load runs without a failure.
const WARM: Duration = Duration::from_secs(120);

/// The running load.
pub(crate) struct Load {
    east: Cluster,
    west: Cluster,
    namespace: String,
    clients: Vec<Client>,
}

/// One client pod.
pub(crate) struct Client {
    name: String,
    /// The node it runs on.
    pub(crate) node: String,
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    Clock::system().now().as_millisecond()
}

impl Load {
    /// Starts servers and clients, and waits until all of them are served.
    pub(crate) async fn start(clusters: &Clusters, namespace: &str) -> Result<Self> {
        let (east, west) = (clusters.east.clone(), clusters.west.clone());
        west.apply(&servers(namespace)).await?;
        let ready = ["-n", namespace, "rollout", "status", "deployment/load", "--timeout=100s"];
        west.kubectl(ready).run(WARM).await?.success()?;
        let nodes = east.kubectl(["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
        let nodes = nodes.run(COMMAND).await?.success()?;
        let nodes: Vec<&str> = nodes.split_whitespace().collect();
        let mut clients = Vec::new();
        let modes =
            ["keep-alive", "per-request"].repeat(4).into_iter().chain(["hold", "hold", "probe", "probe"]);
        let mut manifests = String::new();
        for (number, mode) in modes.enumerate() {
            let (name, node) = (format!("{mode}-{number}"), nodes[number / 2 % nodes.len()].to_owned());
            let (rate, workers) = match mode {
                "hold" => (8, 8),
                "probe" => (1, 12),
                _ => (RATE, WORKERS),
            };
            let target = format!("load-{}.{namespace}.svc.cluster.local:8080", west.context);
            let mode = if mode == "probe" { "per-request" } else { mode };
            let args = format!("[{mode}, {name}, \"{target}\", \"{rate}\", \"{workers}\"]");
            writeln!(manifests, "{}---", pod(&name, namespace, &node, &args))?;
            clients.push(Client { name, node });
        }
        east.apply(&manifests).await?;
        let this = Self { east, west, namespace: namespace.to_owned(), clients };
        this.warm().await;
        Ok(this)
    }

    /// Waits until every client has been served for some seconds without a failure.
    pub(crate) async fn warm(&self) {
        eventually(WARM, "every client to be served without a failure", async || {
            let since = now() - 5000;
            for (name, report) in self.reports(since, |_| true).await? {
                ensure!(report.failed() == 0 && report.ok() > 2, "{name}: {report:?}");
            }
            Ok(())
        })
        .await;
    }

    /// Ends all clients, which start anew by themselves; what each had done since its start.
    pub(crate) async fn stop_clients(&self) -> Result<BTreeMap<String, Report>> {
        let pods = pods(&self.east, &self.namespace, "app=client").await?;
        for pod in &pods {
            signal(pod, "TERM").await?;
        }
        let mut all = BTreeMap::new();
        for pod in pods {
            let logs = ["-n", &self.namespace, "logs", "--previous", &pod.name];
            let report = eventually(COMMAND, "the log of a client that has ended", async || {
                Report::read(&self.east.kubectl(logs).run(COMMAND).await?.success()?, 0)
            })
            .await;
            all.insert(pod.name.clone(), report);
        }
        Ok(all)
    }

    /// What the clients that `wanted` names did from `since` on, by name.
    pub(crate) async fn reports(
        &self,
        since: i64,
        wanted: impl Fn(&Client) -> bool,
    ) -> Result<BTreeMap<String, Report>> {
        let mut all = BTreeMap::new();
        // The log is read from a bit earlier on: what counts is the time that each line names.
        let seconds = format!("--since={}s", (now() - since) / 1000 + 5);
        for client in self.clients.iter().filter(|c| wanted(c)) {
            let logs = ["-n", &self.namespace, "logs", &client.name, &seconds];
            let log = self.east.kubectl(logs).run(COMMAND).await?.success()?;
            all.insert(client.name.clone(), Report::read(&log, since)?);
        }
        Ok(all)
    }

    /// How many requests of each client the servers that run now have answered.
    pub(crate) async fn answered(&self) -> Result<BTreeMap<String, u64>> {
        let names = "jsonpath={.items[*].metadata.name}";
        let pods = self.west.kubectl(["-n", &self.namespace, "get", "pods", "-l", "app=load", "-o", names]);
        let mut all = BTreeMap::new();
        for pod in pods.run(COMMAND).await?.success()?.split_whitespace() {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/counts", self.namespace);
            let counts = self.west.kubectl(["get", "--raw", &path]).run(COMMAND).await?.success()?;
            let counts: BTreeMap<String, u64> = serde_json::from_str(&counts).context("counts")?;
            for (name, count) in counts {
                *all.entry(name).or_default() += count;
            }
        }
        Ok(all)
    }

    /// The namespace of the load.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

fn pod(name: &str, namespace: &str, node: &str, args: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: client}}}}\nspec:\n  \
         nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: load\n    \
         image: linkspan/test-load:{}\n    imagePullPolicy: IfNotPresent\n    args: {args}\n",
        image_version()
    )
}

fn servers(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: load, namespace: {namespace}, labels: {{ mirror.linkerd.io/exported: "true" }} }}
spec: {{ selector: {{ app: load }}, ports: [{{ port: 8080 }}] }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: load, namespace: {namespace} }}
spec:
  replicas: 3
  selector: {{ matchLabels: {{ app: load }} }}
  template:
    metadata: {{ labels: {{ app: load }} }}
    spec:
      tolerations: [{{ operator: Exists, effect: NoSchedule }}]
      topologySpreadConstraints:
      - {{ maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{ matchLabels: {{ app: load }} }} }}
      containers:
      - name: load
        image: linkspan/test-load:{}
        imagePullPolicy: IfNotPresent
        args: [serve, "0.0.0.0:8080"]
        readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }}
"#,
        image_version()
    )
}
