//! Two clusters, west linked into east, and what the tests ask of them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, events::v1::Event};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use linkspan_core::api::{labels, link::Link, slice::SliceRoute};
use linkspan_tests::{Installation, eventually, installation::slice};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, time::Duration};

/// Several times what mirroring takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What must not happen is watched for this long.
pub(crate) const A_WHILE: Duration = Duration::from_secs(3);
/// The namespace of the Services, in both clusters.
pub(crate) const SHOP: &str = "shop";
/// Where west's gateway is said to be; nothing is there.
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 213, 255, 1);

pub(crate) struct Pair {
    pub(crate) east: Installation,
    pub(crate) west: Installation,
    pub(crate) in_east: Client,
    pub(crate) in_west: Client,
}

/// Two clusters with their controllers; west is linked into east.
pub(crate) async fn linked() -> Result<Pair> {
    linked_with(&[]).await
}

/// The same, both installed with these values (`name=value`).
pub(crate) async fn linked_with(values: &[&str]) -> Result<Pair> {
    let local = Ipv4Addr::LOCALHOST.into();
    let (east, west) = tokio::join!(
        Installation::with_values("east", local, NOWHERE, values),
        Installation::with_values("west", local, NOWHERE, values)
    );
    let (mut east, mut west) = (east?, west?);
    west.start_controller().await?;
    east.start_controller().await?;
    for side in [&east, &west] {
        side.server.kubectl(["create", "namespace", SHOP])?.run(SOON).await?.success()?;
    }
    west.link_into(&east).await?;
    let (in_east, in_west) = (east.server.admin().await?, west.server.admin().await?);
    Ok(Pair { east, west, in_east, in_west })
}

impl Pair {
    /// A Service in west with one ready pod, exported.
    pub(crate) async fn export(&self, name: &str) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": SHOP, "name": name,
                         "labels": {labels::EXPORTED: "true", "team": "blue", "helm.sh/chart": "x"},
                         "annotations": {"team.example/page": "blue"}},
            "spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 80, "protocol": "TCP"}]},
        });
        let pods = slice(SHOP, name, name, &[("http", 80)]).with("pod", Ipv4Addr::new(10, 244, 0, 5));
        self.west
            .server
            .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [service, pods.0]}).to_string())
            .await
    }

    pub(crate) async fn stop_export(&self, name: &str) {
        let patch = json!({"metadata": {"labels": {labels::EXPORTED: null}}});
        merge(&api::<Service>(&self.in_west, SHOP), name, &patch).await;
    }

    pub(crate) async fn mirrored(&self, name: &str) -> Service {
        let mirror = format!("{name}-west");
        eventually(SOON, format!("mirror {mirror}"), async || self.mirror(name).await).await
    }

    pub(crate) async fn mirror(&self, name: &str) -> Result<Service> {
        let found = api::<Service>(&self.in_east, SHOP).get_opt(&format!("{name}-west")).await?;
        found.filter(|s| s.labels().contains_key(labels::MIRRORED_SERVICE)).context("no such mirror")
    }

    /// The one slice of ours that the mirror has, and what it says.
    pub(crate) async fn route(&self, name: &str) -> Result<(EndpointSlice, SliceRoute)> {
        let of = format!(
            "{}={name}-west,{}={}",
            labels::SLICE_SERVICE_NAME,
            labels::SLICE_MANAGED_BY,
            labels::MANAGED_BY
        );
        let of = ListParams::default().labels(&of);
        let mut slices = api::<EndpointSlice>(&self.in_east, SHOP).list(&of).await?.items;
        ensure!(
            slices.len() == 1,
            "{} slices: {:?}",
            slices.len(),
            slices.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        let slice = slices.remove(0);
        let route = SliceRoute::from_annotations(slice.annotations())?;
        Ok((slice, route))
    }

    pub(crate) async fn gone(&self, name: &str) {
        eventually(SOON, format!("{name}-west and its slices to be gone"), async || {
            ensure!(self.mirror(name).await.is_err(), "the mirror is there");
            let left = self.route(name).await.err().map(|e| e.to_string()).unwrap_or_default();
            ensure!(left.starts_with("0 slices"), "{left}");
            Ok(())
        })
        .await;
    }

    pub(crate) async fn link(&self) -> Result<Value> {
        Ok(serde_json::to_value(api::<Link>(&self.in_east, labels::NAMESPACE).get("west").await?.status)?)
    }

    pub(crate) async fn condition(&self, kind: &str, wanted: &str) -> Value {
        eventually(SOON, format!("condition {kind}={wanted}"), async || {
            let status = self.link().await?;
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|c| c["type"] == kind && c["status"] == wanted);
            found.with_context(|| format!("status is {status}"))
        })
        .await
    }

    /// Applies objects in one cluster, with all rights and past all faults.
    pub(crate) async fn apply(&self, cluster: &Installation, items: &[Value]) -> Result<()> {
        cluster.server.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await
    }

    /// Waits until Service `service` (or `<host>.<service>`) is told, as `reason`, in the status of Link `link`, and by one
    /// Event.
    pub(crate) async fn told(&self, link: &str, service: &str, reason: &str) -> String {
        let what = format!("{reason} of {service} to be told");
        let message = eventually(SOON, &what, async || {
            let link: Link = api(&self.in_east, labels::NAMESPACE).get(link).await?;
            let status = link.status.unwrap_or_default();
            let found = status.mirror_services.iter().find(|s| s.remote_ref.name == service);
            let condition = found.and_then(|s| s.conditions.first());
            let condition = condition.filter(|c| c.reason == reason);
            Ok(condition.with_context(|| format!("status is {status:?}"))?.message.clone())
        })
        .await;
        eventually(SOON, format!("{what} by one Event"), async || {
            let events = api::<Event>(&self.in_east, labels::NAMESPACE).list(&ListParams::default()).await?;
            let about = |e: &&Event| {
                let related = e.related.as_ref().and_then(|r| r.name.as_deref());
                e.reason.as_deref() == Some(reason) && related == Some(service)
            };
            let found: Vec<&Event> = events.items.iter().filter(about).collect();
            ensure!(found.len() == 1, "{} events: {found:?}", found.len());
            Ok(())
        })
        .await;
        message
    }
}

pub(crate) fn api<K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(client.clone(), namespace)
}

pub(crate) async fn merge<K>(api: &Api<K>, name: &str, patch: &Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("an edit by hand is accepted");
}
