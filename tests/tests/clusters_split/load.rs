//! Clients in a pod: one that asks all the time over new connections and notes what fails, and one that asks at once.

use anyhow::{Context, Result, ensure};
use linkspan_tests::{clusters::Cluster, eventually};
use std::{collections::BTreeSet, time::Duration};

const PATIENCE: Duration = Duration::from_secs(120);
/// Askers at once.
const ASKERS: usize = 3;
const URL: &str = "http://my-api:8080/hostname";

/// The pod.
pub(crate) struct Load {
    cluster: Cluster,
    ns: String,
}

impl Load {
    /// Starts to ask.
    pub(crate) async fn start(cluster: &Cluster, ns: &str) -> Result<Self> {
        let one = format!(
            "while true; do while [ -e /tmp/pause ]; do sleep 0.2; done; \
             out=$(curl -sS -m 5 -w '%{{http_code}}' -o /dev/null {URL} 2>&1); \
             if [ \"$out\" = 200 ]; then echo ok >>/tmp/asked; else echo \"$(date +%T) $out\" >>/tmp/failed; fi; done"
        );
        let all = format!("touch /tmp/failed; for i in $(seq {ASKERS}); do ({one}) & done; wait");
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "namespace": ns},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "load", "image": "linkspan/client:demo", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", all]}]},
        });
        cluster.apply(&pod.to_string()).await?;
        let load = Self { cluster: Cluster::connect(&cluster.context).await?, ns: ns.to_owned() };
        eventually(PATIENCE, "the load to run", async || {
            let (asked, _) = load.so_far().await?;
            ensure!(asked > 10, "{asked} asked");
            Ok(())
        })
        .await;
        Ok(load)
    }

    /// What `command` prints in the pod.
    pub(crate) async fn exec(&self, command: &str) -> Result<String> {
        let exec = ["-n", &self.ns, "exec", "load", "--", "sh", "-c", command];
        self.cluster.kubectl(exec).run(PATIENCE).await?.success()
    }

    /// The answers to `count` requests over one connection.
    pub(crate) async fn ask(&self, count: usize, flags: &str) -> Result<Vec<String>> {
        let answers = self.exec(&format!("curl -s -m 60 {flags} '{URL}?[1-{count}]'")).await?;
        Ok(answers.lines().map(str::to_owned).collect())
    }

    /// How many were answered, and what failed.
    pub(crate) async fn so_far(&self) -> Result<(usize, Vec<String>)> {
        let text = self.exec("wc -l </tmp/asked; cat /tmp/failed").await?;
        let mut lines = text.lines();
        let asked = lines.next().and_then(|l| l.trim().parse().ok()).context("nothing was asked")?;
        Ok((asked, lines.map(str::to_owned).collect()))
    }

    /// Asks nothing for a while.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.exec("touch /tmp/pause; sleep 6").await.map(drop)
    }

    /// Goes on, and forgets what failed meanwhile.
    pub(crate) async fn resume(&self) -> Result<()> {
        self.exec("rm -f /tmp/pause; : >/tmp/failed").await.map(drop)
    }

    /// Forgets what failed.
    pub(crate) async fn forget(&self) -> Result<()> {
        self.exec(": >/tmp/failed").await.map(drop)
    }

    /// Waits until nothing has failed for five seconds; how many had until then.
    pub(crate) async fn until_well(&self, within: Duration) -> Result<usize> {
        let end = tokio::time::Instant::now() + within;
        let mut before = usize::MAX;
        loop {
            let (_, failed) = self.so_far().await?;
            if failed.len() == before {
                return Ok(before);
            }
            before = failed.len();
            ensure!(
                tokio::time::Instant::now() < end,
                "the last failures: {:?}",
                failed.iter().rev().take(3).collect::<Vec<_>>()
            );
            self.exec("sleep 5").await?;
        }
    }
}

/// Names of the pods of `my-api`.
pub(crate) async fn pods_of(cluster: &Cluster, ns: &str) -> Result<BTreeSet<String>> {
    let get = ["-n", ns, "get", "pods", "-l", "app=my-api", "-o", "jsonpath={.items[*].metadata.name}"];
    Ok(cluster.kubectl(get).run(PATIENCE).await?.success()?.split_whitespace().map(str::to_owned).collect())
}

/// How many answers are of `pods`, and how many are no pod's at all.
pub(crate) fn counts(answers: &[String], pods: &BTreeSet<String>) -> (usize, usize) {
    let west = answers.iter().filter(|a| pods.contains(*a)).count();
    let other = answers.iter().filter(|a| !a.starts_with("my-api-")).count();
    (west, other)
}
