//! What an operator sees: both clusters scraped by a real Prometheus through their API servers, the documented metrics,
//! the dashboard's queries, the alerts, and logs.
//!
//! The link is made by the chart `linkspan-link`, with an API server that is known by its name alone, so images hold
//! all that a name lookup needs.

mod clusters_observability {
    pub(crate) mod link;
    pub(crate) mod logs;
    pub(crate) mod prometheus;
}

use anyhow::{Context, Result, ensure};
use clusters_observability::{link, logs, prometheus::Prometheus};
use linkspan_tests::{
    Need,
    clusters::{Clusters, system::System},
    eventually, have, metrics, tools,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, time::Duration};

const SOON: Duration = Duration::from_secs(120);
/// These have no samples as long as all is well.
const WHEN_IT_HAPPENS: [&str; 2] = ["linkspan_watch_restarts", "linkspan_inbound_rejected"];
/// Labels that Prometheus adds to each series.
const ADDED: [&str; 6] = ["__name__", "cluster", "instance", "job", "pod", "le"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_dashboard_alerts_and_logs_hold_what_is_documented() -> Result<()> {
    let tools = ["kubectl", "helm", "prometheus"].map(Need::Tool);
    if !have(&[Need::Clusters]) || !have(&tools) {
        return Ok(());
    }
    let clusters = Clusters::connect().await?;
    let charts = tools::repository().join("charts");
    let _system = System::install(&clusters, &charts, &["logFormat=json"]).await?;
    let namespace = clusters.namespace("observability").await?;
    let ns = namespace.name();
    link::by_chart(&clusters, &charts).await?;
    clusters.west.apply(&web(ns)).await?;
    clusters.east.apply(&client(ns)).await?;
    let ready = ["-n", ns, "wait", "--for=condition=Ready", "--timeout=90s", "pod/client"];
    clusters.east.kubectl(ready).run(SOON).await?.success()?;
    let exec = async |script: &str| {
        let exec = ["exec", "-n", ns, "client", "--", "sh", "-c", script];
        clusters.east.kubectl(exec).run(SOON).await?.success()
    };
    eventually(SOON, "an answer through the mirror", async || {
        exec("curl -sS --max-time 10 http://web-cluster-west:8080/health").await
    })
    .await;

    let prometheus = Prometheus::start(&clusters, &charts.join("linkspan/alerts/linkspan.yaml")).await?;
    // What is counted only when something goes wrong: a gateway is asked for a Service that has no pod.
    let nowhere = link::egress_address(&clusters.east, ns, "nowhere-cluster-west").await?;
    let script = format!(
        "for i in $(seq 300); do curl -sS --max-time 10 http://web-cluster-west:8080/hostname >/dev/null || exit 1; \
         curl -s --max-time 5 http://{nowhere}/ >/dev/null; done; true"
    );
    exec(&script).await?;

    let described = Prometheus::described(&clusters).await?;
    metrics::all_documented(&described)?;
    let document = fs::read_to_string(tools::repository().join(metrics::DOCUMENT))?;
    let documented = metrics::documented(&document);
    ensure!(documented.len() > 20, "only {} documented metrics", documented.len());
    for metric in &documented {
        eventually(SOON, format!("samples of {}", metric.name), async || {
            let series = prometheus.series(&metric.series()).await?;
            ensure!(!series.is_empty() || WHEN_IT_HAPPENS.contains(&metric.name.as_str()), "there are none");
            let expected: BTreeSet<&str> = metric.labels.iter().flatten().map(String::as_str).collect();
            for labels in &series {
                let seen = labels.as_object().context("no labels")?.keys().map(String::as_str);
                // A label of ours that Prometheus adds, too, is given another name by it.
                let seen =
                    seen.filter(|label| !ADDED.contains(label)).map(|l| l.trim_start_matches("exported_"));
                let seen: BTreeSet<&str> = seen.collect();
                ensure!(seen.is_subset(&expected), "labels are {seen:?}, the document says {expected:?}");
            }
            Ok(())
        })
        .await;
    }
    println!("FIGURE: {} documented metrics, all with samples", documented.len());

    let queries = dashboard_queries(&charts.join("linkspan/dashboards/linkspan.json"))?;
    for query in &queries {
        eventually(SOON, format!("data for {query}"), async || {
            let result = prometheus.query(query).await?;
            ensure!(!result.is_empty(), "no data");
            Ok(())
        })
        .await;
    }
    println!("FIGURE: {} queries of the dashboard, all with data", queries.len());
    let firing = prometheus.rules().await?;
    ensure!(firing.len() >= 7, "rules: {firing:?}");
    for (rule, (health, _)) in &firing {
        ensure!(health == "ok", "rule {rule} is {health}");
    }

    logs::hold_what_is_documented(&clusters).await?;
    let unlink = ["--kube-context", &clusters.east.context, "-n", "linkspan", "uninstall", "cluster-west"];
    link::helm(&unlink).await
}

/// Every query of the dashboard, its variables filled in.
fn dashboard_queries(path: &std::path::Path) -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str());
    Ok(queries.map(|q| q.replace("$cluster", ".+").replace("$__rate_interval", "1m")).collect())
}

/// A web server that is exported, and an exported Service without a pod.
fn web(ns: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: {ns}, labels: {{ mirror.linkerd.io/exported: "true" }} }}
spec: {{ selector: {{ app: web }}, ports: [{{ port: 8080 }}] }}
---
apiVersion: v1
kind: Service
metadata: {{ name: nowhere, namespace: {ns}, labels: {{ mirror.linkerd.io/exported: "true" }} }}
spec: {{ selector: {{ app: nowhere }}, ports: [{{ port: 8080 }}] }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: web, namespace: {ns}, labels: {{ app: web }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{ name: web, image: "linkspan/test-apps:demo", imagePullPolicy: IfNotPresent, command: [nginx] }}
"#
    )
}

fn client(ns: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: client, namespace: {ns} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{ name: client, image: "linkspan/client:demo", imagePullPolicy: IfNotPresent, command: [sleep, "86400"] }}
"#
    )
}
