//! A real Prometheus that scrapes both clusters through their API servers, as one outside of them does.

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use linkspan_core::api::labels::NAMESPACE;
use linkspan_tests::{
    Process, Program,
    clusters::{Cluster, Clusters, kubeconfig},
    eventually, http,
    metrics::{self, Metric},
    scratch::Scratch,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(60);

/// The running Prometheus.
pub(crate) struct Prometheus {
    address: String,
    _process: Process,
    _scratch: Scratch,
}

impl Prometheus {
    /// Starts it, with the alerts of `rules`.
    pub(crate) async fn start(clusters: &Clusters, rules: &Path) -> Result<Self> {
        let scratch = Scratch::new("prometheus")?;
        let jobs = [job(&clusters.east, &scratch).await?, job(&clusters.west, &scratch).await?];
        let config = json!({
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": [rules.canonicalize()?],
            "scrape_configs": jobs,
        });
        let file = scratch.write("prometheus.yml", &config.to_string())?;
        // The kernel chooses a port; whoever takes it in the moment until Prometheus does makes it fail by name.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let process = Program::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .start("prometheus")?;
        let this = Self { address, _process: process, _scratch: scratch };
        eventually(SOON, "every pod to be scraped", async || {
            let up = this.query("up").await?;
            // Two gateways and a controller in each cluster.
            ensure!(up.len() == 6 && up.iter().all(|s| s["value"][1] == "1"), "{up:?}");
            Ok(())
        })
        .await;
        Ok(this)
    }

    /// The samples that `query` has now; not those that are no number.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let mut found = self.ask(&format!("query?query={}", encode(query))).await?;
        let mut samples: Vec<Value> = serde_json::from_value(found["result"].take())?;
        samples.retain(|sample| sample["value"][1] != "NaN");
        Ok(samples)
    }

    /// The label sets of metric `name`.
    pub(crate) async fn series(&self, name: &str) -> Result<Vec<Value>> {
        Ok(serde_json::from_value(self.ask(&format!("series?match[]={}", encode(name))).await?)?)
    }

    /// Health and state of each alerting rule, by name.
    pub(crate) async fn rules(&self) -> Result<BTreeMap<String, (String, String)>> {
        let found = self.ask("rules").await?;
        let rules = found["groups"][0]["rules"].as_array().context("no rules")?.iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules.map(|r| (text(&r["name"]), (text(&r["health"]), text(&r["state"])))).collect())
    }

    /// The metrics that gateways of both clusters describe, each once, by name.
    pub(crate) async fn described(clusters: &Clusters) -> Result<Vec<Metric>> {
        let mut all = BTreeMap::new();
        for cluster in [&clusters.east, &clusters.west] {
            for pod in pods(cluster, "app.kubernetes.io/component=gateway").await? {
                let page =
                    cluster.kubectl(["get", "--raw", &metrics_path(&pod)]).run(SOON).await?.success()?;
                all.extend(metrics::described(&page).into_iter().map(|m| (m.name.clone(), m)));
            }
        }
        Ok(all.into_values().collect())
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let text = http::get(&self.address, &format!("/api/v1/{path}")).await?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].take())
    }
}

fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Where the API server leads to the metrics of `pod`.
fn metrics_path(pod: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9999/proxy/metrics")
}

async fn pods(cluster: &Cluster, selector: &str) -> Result<Vec<String>> {
    let names = ["-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"];
    let names = cluster.kubectl(names).run(SOON).await?.success()?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// Scrapes each pod of the installation through the API server's proxy to it.
async fn job(installation: &Cluster, scratch: &Scratch) -> Result<Value> {
    let name = &installation.context;
    let text = std::fs::read_to_string(kubeconfig())?;
    let all: Value = serde_norway::from_str(&text)?;
    let find = |list: &str, entry: &str| {
        let found = all[list].as_array().and_then(|l| l.iter().find(|one| one["name"] == *entry));
        found.with_context(|| format!("{list} has no {entry}"))
    };
    let context = &find("contexts", name)?["context"];
    let cluster = &find("clusters", context["cluster"].as_str().unwrap_or_default())?["cluster"];
    let user = &find("users", context["user"].as_str().unwrap_or_default())?["user"];
    let file = |key: &str, value: &Value| -> Result<PathBuf> {
        let data: ByteString = serde_json::from_value(value.clone())?;
        scratch.write(&format!("{name}-{key}"), &String::from_utf8(data.0)?)
    };
    let tls = json!({
        "ca_file": file("ca.crt", &cluster["certificate-authority-data"])?,
        "cert_file": file("client.crt", &user["client-certificate-data"])?,
        "key_file": file("client.key", &user["client-key-data"])?,
    });
    let server = cluster["server"].as_str().context("no server")?;
    // Debian's Prometheus knows no Kubernetes; and no pod comes or goes here.
    let target = |pod: String| {
        json!({
            "targets": [server.trim_start_matches("https://")],
            "labels": {
                "__metrics_path__": metrics_path(&pod),
                "cluster": name.trim_start_matches("cluster-"),
                "pod": pod,
            },
        })
    };
    let pods = pods(installation, "app.kubernetes.io/part-of=linkspan").await?;
    let targets: Vec<Value> = pods.into_iter().map(target).collect();
    Ok(json!({"job_name": name, "scheme": "https", "tls_config": tls, "static_configs": targets}))
}
