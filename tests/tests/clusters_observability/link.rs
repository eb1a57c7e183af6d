//! The link, made by the chart from values.

use anyhow::{Context, Result, ensure};
use linkspan_core::api::labels::NAMESPACE;
use linkspan_tests::{
    Program,
    clusters::{COMMAND, Cluster, Clusters, kubeconfig},
    eventually,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// West's API server by name, as its certificate has it and the clusters' DNS knows it.
const API_SERVER: &str = "https://west-control-plane:6443";
const SOON: Duration = Duration::from_secs(120);

/// Links west into east by the chart `linkspan-link`, and waits until the link is alive and its mirrors are synced.
pub(crate) async fn by_chart(clusters: &Clusters, charts: &Path) -> Result<()> {
    let link = ["link", "--cluster-name", "cluster-west", "--api-server-address", API_SERVER];
    let printed = clusters.west.link_cli(link)?.run(SOON).await?.success()?;
    let values = values(&printed)?;
    let file = std::env::temp_dir().join(format!("linkspan-link-values-{}.json", std::process::id()));
    std::fs::write(&file, values.to_string())?;
    let chart = charts.join("linkspan-link");
    let (chart, path) = (chart.to_string_lossy(), file.to_string_lossy());
    let context = &clusters.east.context;
    let installed = helm(&[
        "--kube-context",
        context,
        "-n",
        NAMESPACE,
        "upgrade",
        "--install",
        "cluster-west",
        &chart,
        "-f",
        &path,
    ])
    .await;
    std::fs::remove_file(&file)?;
    installed?;
    eventually(SOON, "the link to be alive and synced", async || {
        let conditions = "jsonpath={range .status.conditions[*]}{.type}={.status} {.message};{end}";
        let get = ["-n", NAMESPACE, "get", "links.multicluster.linkerd.io", "cluster-west", "-o", conditions];
        let seen = clusters.east.kubectl(get).run(COMMAND).await?.success()?;
        for condition in ["Connected=True", "Synced=True", "GatewayAlive=True", "CredentialsValid=True"] {
            ensure!(seen.contains(condition), "{seen}");
        }
        Ok(())
    })
    .await;
    Ok(())
}

/// The chart's values, out of what `link-cli link` prints.
fn values(printed: &str) -> Result<Value> {
    let documents = serde_norway::Deserializer::from_str(printed).map(Value::deserialize);
    let documents: Vec<Value> = documents.collect::<Result<_, _>>()?;
    let one = |kind: &str| documents.iter().find(|d| d["kind"] == kind).with_context(|| format!("no {kind}"));
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(one("Secret")?.clone())?;
    let kubeconfig = secret.data.and_then(|mut data| data.remove("kubeconfig")).context("no kubeconfig")?;
    let spec = &one("Link")?["spec"];
    let text = |name: &str| spec[name].as_str().with_context(|| format!("no {name}"));
    Ok(json!({
        "name": "cluster-west",
        "kubeconfig": String::from_utf8(kubeconfig.0)?,
        "caBundle": one("ConfigMap")?["data"]["ca-bundle.crt"],
        "gateway": {
            "addresses": text("gatewayAddress")?.split(',').collect::<Vec<_>>(),
            "port": text("gatewayPort")?.parse::<u16>()?,
            "identity": text("gatewayIdentity")?,
        },
    }))
}

/// Runs helm.
pub(crate) async fn helm(args: &[&str]) -> Result<()> {
    Program::new("helm").args(args).env("KUBECONFIG", kubeconfig()).run(SOON).await?.success()?;
    Ok(())
}

/// Where a gateway pod listens for mirror `service`, whether or not the mirror's slice holds it for ready.
pub(crate) async fn egress_address(east: &Cluster, ns: &str, service: &str) -> Result<String> {
    let label = format!("kubernetes.io/service-name={service}");
    let where_ = "jsonpath={.items[0].endpoints[0].addresses[0]}:{.items[0].ports[0].port}";
    let get = ["-n", ns, "get", "endpointslices", "-l", &label, "-o", where_];
    Ok(eventually(SOON, format!("the slice of {service}"), async || {
        let address = east.kubectl(get).run(COMMAND).await?.success()?;
        ensure!(address.parse::<std::net::SocketAddr>().is_ok(), "{address:?}");
        Ok(address)
    })
    .await)
}
