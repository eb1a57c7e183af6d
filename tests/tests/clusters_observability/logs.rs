//! Logs: JSON when asked for, nothing for each flow at level info, and no secret anywhere.

use anyhow::{Context, Result, ensure};
use k8s_openapi::{List, api::core::v1::Secret};
use linkspan_core::api::labels::NAMESPACE;
use linkspan_tests::clusters::{COMMAND, Cluster, Clusters};
use serde_json::Value;
use std::collections::BTreeSet;

/// Lines that one pod may write at level info in a test that takes some minutes; the flows of it are hundreds.
const LINES: usize = 150;

/// Reads the logs of all pods of both installations.
pub(crate) async fn hold_what_is_documented(clusters: &Clusters) -> Result<()> {
    for cluster in [&clusters.east, &clusters.west] {
        let secrets = secrets(cluster).await?;
        ensure!(secrets.len() > 5, "{}: only {} secrets found", cluster.context, secrets.len());
        let names = ["-n", NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
        for pod in cluster.kubectl(names).run(COMMAND).await?.success()?.split_whitespace() {
            let log = cluster.kubectl(["-n", NAMESPACE, "logs", pod]).run(COMMAND).await?.success()?;
            let told = log.lines().count();
            println!("FIGURE: {} {pod}: {told} lines of log", cluster.context);
            ensure!((1..=LINES).contains(&told), "{pod} wrote {told} lines:\n{log}");
            for line in log.lines() {
                let entry: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
                let level = entry["level"].as_str().unwrap_or_default();
                ensure!(["INFO", "WARN", "ERROR"].contains(&level), "{pod}: {line}");
                ensure!(entry["timestamp"].is_string() && entry["message"].is_string(), "{pod}: {line}");
            }
            for (name, secret) in &secrets {
                ensure!(!log.contains(secret.as_str()), "{pod} logs what Secret {name} holds");
            }
            ensure!(
                !log.contains("PRIVATE KEY") && !log.contains("eyJ"),
                "{pod} logs a key or a token:\n{log}"
            );
        }
    }
    Ok(())
}

/// Pieces of everything secret in the namespace that a log could hold: lines of keys, tokens.
async fn secrets(cluster: &Cluster) -> Result<BTreeSet<(String, String)>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let get = cluster.kubectl(["get", "--raw", &path]);
    let list: List<Secret> = serde_json::from_str(&get.run(COMMAND).await?.success()?)?;
    let mut pieces = BTreeSet::new();
    for secret in list.items {
        let name = secret.metadata.name.unwrap_or_default();
        if secret.type_.as_deref() == Some("helm.sh/release.v1") {
            continue;
        }
        for value in secret.data.unwrap_or_default().into_values() {
            let text = String::from_utf8_lossy(&value.0).into_owned();
            let words = text.split(|c: char| c.is_whitespace() || c == '"').filter(|w| w.len() >= 40);
            pieces.extend(words.map(|word| (name.clone(), word.to_owned())));
        }
    }
    Ok(pieces)
}
