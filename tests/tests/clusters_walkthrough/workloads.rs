//! What runs on the clusters during the walkthrough: servers from Debian, and plain client pods.

use anyhow::{Context, Result, ensure};
use linkspan_tests::{Process, clusters::Cluster, eventually};
use std::time::Duration;

/// Time a command or a start of pods may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Manifests of redis, a mail server (it speaks first) and two web servers, of which `hidden` is not exported.
pub(crate) fn servers(namespace: &str) -> String {
    let server = |name: &str, command: &str, port: u16, exported: &str| {
        format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace}, labels: {{ mirror.linkerd.io/exported: "{exported}" }} }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ port: {port} }}] }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {namespace}, labels: {{ app: {name} }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {{ name: server, image: "linkspan/test-apps:demo", imagePullPolicy: IfNotPresent, command: [{command}] }}
---"#
        )
    };
    [
        server("redis", "redis-server, --protected-mode, 'no', --save, ''", 6379, "true"),
        server("mail", "serve-smtp", 2525, "true"),
        server("web", "nginx", 8080, "true"),
        server("hidden", "nginx", 8080, "false"),
    ]
    .concat()
}

/// The names of the pods of `selector`.
pub(crate) async fn pods(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<String>> {
    let names = "jsonpath={.items[*].metadata.name}";
    let list = cluster.kubectl(["get", "pods", "-n", namespace, "-l", selector, "-o", names]);
    Ok(list.run(PATIENCE).await?.success()?.split_whitespace().map(str::to_owned).collect())
}

/// A plain pod that runs commands.
pub(crate) struct Client {
    cluster: Cluster,
    namespace: String,
    pod: String,
}

impl Client {
    /// A pod wherever the scheduler puts it.
    pub(crate) async fn start(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        let mut made = Self::start_on(cluster, namespace, &[(name.to_owned(), None)]).await?;
        made.pop().context("no pod was made")
    }

    /// A pod on each node of the cluster.
    pub(crate) async fn on_every_node(cluster: &Cluster, namespace: &str) -> Result<Vec<Self>> {
        let nodes = cluster.kubectl(["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
        let nodes = nodes.run(PATIENCE).await?.success()?;
        let wanted: Vec<_> =
            nodes.split_whitespace().map(|n| (format!("client-{n}"), Some(n.to_owned()))).collect();
        ensure!(wanted.len() >= 3, "{} nodes", wanted.len());
        Self::start_on(cluster, namespace, &wanted).await
    }

    async fn start_on(
        cluster: &Cluster,
        namespace: &str,
        wanted: &[(String, Option<String>)],
    ) -> Result<Vec<Self>> {
        let manifests: String = wanted
            .iter()
            .map(|(name, node)| {
                let node = node.as_ref().map_or(String::new(), |n| format!("  nodeName: {n}\n"));
                format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n{node}  \
                     terminationGracePeriodSeconds: 1\n  containers:\n    - {{ name: client, image: \"linkspan/client:demo\", \
                     imagePullPolicy: IfNotPresent, command: [sleep, \"86400\"] }}\n---\n"
                )
            })
            .collect();
        cluster.apply(&manifests).await?;
        let mut made = Vec::new();
        for (name, _) in wanted {
            let ready = ["wait", "-n", namespace, "--for=condition=Ready", "--timeout=90s", "pod", name];
            cluster.kubectl(ready).run(PATIENCE).await?.success()?;
            made.push(Self { cluster: cluster.clone(), namespace: namespace.to_owned(), pod: name.clone() });
        }
        Ok(made)
    }

    /// Its name.
    pub(crate) fn pod(&self) -> &str {
        &self.pod
    }

    /// What `script` prints when the pod's shell runs it.
    pub(crate) async fn exec(&self, script: &str) -> Result<String> {
        let exec = ["exec", "-n", &self.namespace, &self.pod, "--", "sh", "-c", script];
        self.cluster.kubectl(exec).run(PATIENCE).await?.success()
    }

    /// A connection to `host` that has carried one HTTP answer and stays open.
    pub(crate) async fn held_connection(&self, host: &str, port: u16) -> Result<Held> {
        let request = "printf 'GET /health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'";
        let script =
            format!("{{ {request}; sleep 600; }} | {{ socat -t0 - TCP:{host}:{port}; echo closed; }}");
        let exec = ["exec", "-n", &self.namespace, &self.pod, "--", "sh", "-c", &script];
        let held = Held(self.cluster.kubectl(exec).start("held-connection")?);
        eventually(PATIENCE, "the answer on the connection that is held", async || {
            let log = held.0.log();
            ensure!(log.contains("200 OK") && log.contains("ok\n") && !log.contains("closed"), "{log:?}");
            Ok(())
        })
        .await;
        Ok(held)
    }

    /// Deletes the pod.
    pub(crate) async fn remove(self) -> Result<()> {
        let delete = ["delete", "pod", "-n", &self.namespace, &self.pod, "--wait"];
        self.cluster.kubectl(delete).run(PATIENCE).await?.success()?;
        Ok(())
    }
}

/// A connection that is open until the other side ends it.
pub(crate) struct Held(Process);

impl Held {
    /// Waits until the other side has ended it.
    pub(crate) async fn ended(self, deadline: Duration) {
        eventually(deadline, "the held connection to end", async || {
            let log = self.0.log();
            ensure!(log.contains("closed"), "{log:?}");
            Ok(())
        })
        .await;
    }
}
