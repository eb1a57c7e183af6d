//! Objects in great numbers, and how long the controller takes for what follows from them.

use crate::{Bed, LONG, gateway::Gateway, our_slices, shop};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use linkspan_core::api::{exported_service::ExportedService, labels};
use linkspan_tests::{installation::slice, wait::until};
use serde_json::{Value, from_value, json};
use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};
use tokio::time::Instant;

/// The namespace of the Services.
pub(crate) const SHOP: &str = "shop";
/// Requests at once.
const AT_ONCE: usize = 32;

pub(crate) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace: Namespace = from_value(json!({"metadata": {"name": name}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

fn service(name: &str, exported: bool) -> Result<Service> {
    let labels = json!({labels::EXPORTED: exported.to_string(), "app": name, "team": "blue"});
    Ok(from_value(json!({
        "metadata": {"namespace": SHOP, "name": name, "labels": labels,
                     "annotations": {"team.example/page": "https://pages.example/blue"}},
        "spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 80, "protocol": "TCP"}]},
    }))?)
}

fn pods(name: &str) -> Result<EndpointSlice> {
    let slice = slice(SHOP, name, name, &[("http", 80)]).with("pod", Ipv4Addr::new(10, 244, 0, 5));
    Ok(from_value(slice.0)?)
}

/// A Service with a ready pod.
async fn make(client: &Client, name: &str, exported: bool) -> Result<()> {
    let (services, slices) = shop(client);
    slices.create(&PostParams::default(), &pods(name)?).await?;
    services.create(&PostParams::default(), &service(name, exported)?).await?;
    Ok(())
}

/// `n` exported Services, each with a ready pod.
pub(crate) async fn exports(client: &Client, n: usize) -> Result<()> {
    let all = stream::iter(0..n).map(|i| async move { make(client, &format!("svc-{i:05}"), true).await });
    all.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Waits until `n` are published.
pub(crate) async fn published(client: &Client, n: usize, within: Duration) -> Result<()> {
    let api = Api::<ExportedService>::namespaced(client.clone(), labels::NAMESPACE);
    until(within, async || {
        let count = api.list_metadata(&ListParams::default()).await?.items.len();
        ensure!(count >= n, "{count} of {n} are published");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    })
    .await
}

/// Objects per second that a loop makes which does nothing else: `n` Services and slices as the controller writes them.
/// An API server that holds many is slower, so both must make as many.
pub(crate) async fn bare_rate(client: &Client, n: usize) -> Result<f64> {
    let (services, slices) = shop(client);
    let (services, slices) = (&services, &slices);
    let start = Instant::now();
    let all = stream::iter(0..n).map(|i| async move {
        let name = format!("bare-{i:05}-west");
        let mirror: Service = from_value(json!({
            "metadata": {"name": name, "labels": {"app": "bare", "team": "blue", labels::MIRRORED: "true"},
                "annotations": {labels::REMOTE_SVC_FQ_NAME: format!("{name}.shop.svc.cluster.local"),
                                labels::REMOTE_RESOURCE_VERSION: "12345",
                                labels::REMOTE_GATEWAY_IDENTITY: "spiffe://0000.linkspan/ns/linkspan/sa/linkspan-gateway",
                                "team.example/page": "https://pages.example/blue"}},
            "spec": {"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "sessionAffinity": "None",
                     "ports": [{"name": "http", "port": 8080, "targetPort": 10000, "protocol": "TCP"}]},
        }))?;
        let made = services.create(&PostParams::default(), &mirror).await?;
        let mut slice = pods(&name)?;
        slice.metadata.annotations = mirror.metadata.annotations;
        slice.metadata.owner_references = Some(vec![from_value(json!({
            "apiVersion": "v1", "kind": "Service", "name": name, "uid": made.uid(), "controller": true}))?]);
        slices.create(&PostParams::default(), &slice).await?;
        anyhow::Ok(())
    });
    all.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let rate = 2.0 * n as f64 / start.elapsed().as_secs_f64();
    let gone = stream::iter(0..n).map(|i| async move {
        let name = format!("bare-{i:05}-west");
        services.delete(&name, &DeleteParams::background()).await?;
        slices.delete(&name, &DeleteParams::background()).await.ok();
        anyhow::Ok(())
    });
    gone.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(rate)
}

/// Objects of `kind`, as it stands in paths, that east's controller made since its requests were forgotten. Counted at the
/// proxy: asking the API server again and again would be most of its work.
pub(crate) fn made(bed: &Bed, kind: &str) -> usize {
    let seen = bed.east.server.faults().requests();
    seen.iter().filter(|r| r.method == "POST" && r.status == 201 && r.path.contains(kind)).count()
}

/// `n` headless Services that nobody exports.
pub(crate) async fn beside(client: &Client, n: usize) -> Result<()> {
    namespace(client, "beside").await?;
    let services = Api::<Service>::namespaced(client.clone(), "beside");
    let services = &services;
    let all = stream::iter(0..n).map(|i| async move {
        let service: Service = from_value(json!({
            "metadata": {"name": format!("headless-{i:06}"), "labels": {"app": "db", "team": "red"}},
            "spec": {"clusterIP": "None", "selector": {"none": "such"}, "ports": [{"port": 5432}]},
        }))?;
        services.create(&PostParams::default(), &service).await?;
        anyhow::Ok(())
    });
    all.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// From the label on a Service to the mirror's slice, `samples` times, one after the other.
pub(crate) async fn latencies(bed: &Bed, prefix: &str, samples: usize) -> Result<Vec<Duration>> {
    let (west_services, _) = shop(&bed.in_west);
    let (_, slices) = shop(&bed.in_east);
    let mut all = Vec::new();
    // The first one finds connections and watches cold.
    for i in 0..=samples {
        let name = format!("{prefix}-{i:03}");
        make(&bed.in_west, &name, false).await?;
        let of = format!("{}={name}-west,{}", labels::SLICE_SERVICE_NAME, our_slices());
        let now = slices.list_metadata(&ListParams::default().labels(&of).limit(1)).await?;
        let version = now.metadata.resource_version.unwrap_or_default();
        let events = slices.watch(&WatchParams::default().labels(&of), &version).await?;
        let mut events = std::pin::pin!(events);
        let start = Instant::now();
        let label = json!({"metadata": {"labels": {labels::EXPORTED: "true"}}});
        west_services.patch(&name, &PatchParams::default(), &Patch::Merge(&label)).await?;
        let made = async {
            while let Some(event) = events.next().await {
                if matches!(event?, WatchEvent::Added(_)) {
                    return anyhow::Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        };
        tokio::time::timeout(Duration::from_secs(60), made)
            .await
            .with_context(|| format!("no slice of {name}"))??;
        if i > 0 {
            all.push(start.elapsed());
        }
    }
    Ok(all)
}

fn is_dead(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().all(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(false))
}

/// The gateway dies: seconds until the first and until all of `n` slices say so. Afterwards it lives again.
pub(crate) async fn death(client: &Client, n: usize, gateway: &Gateway) -> Result<(f64, f64)> {
    let (_, slices) = shop(client);
    let of = our_slices();
    let count = async |dead: bool| -> Result<()> {
        let all = slices.list(&ListParams::default().labels(&of)).await?.items;
        let count = all.iter().filter(|s| is_dead(s) == dead).count();
        ensure!(count >= n, "{count} of {n}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    };
    until(LONG, async || count(false).await).await.context("slices are not ready")?;
    let now = slices.list_metadata(&ListParams::default().labels(&of).limit(1)).await?;
    let version = now.metadata.resource_version.unwrap_or_default();
    let events = slices.watch(&WatchParams::default().labels(&of), &version).await?;
    let mut events = std::pin::pin!(events);
    let start = Instant::now();
    gateway.say(false);
    let (mut dead, mut first) = (BTreeSet::new(), None);
    while dead.len() < n {
        let event = tokio::time::timeout(LONG, events.next()).await?.context("the watch ended")??;
        if let WatchEvent::Modified(slice) = event
            && is_dead(&slice)
        {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            dead.insert(slice.name_any());
        }
    }
    let all = start.elapsed().as_secs_f64();
    gateway.say(true);
    until(LONG, async || count(false).await).await.context("slices do not come back")?;
    Ok((first.unwrap_or(all), all))
}

/// `value` as an object of any kind.
pub(crate) fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    Ok(from_value(value)?)
}
