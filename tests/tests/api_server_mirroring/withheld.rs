//! What the exporting cluster's gate withholds is told to whoever exported it.

use crate::{
    pair::{Pair, SOON, api, merge},
    shapes::service,
};
use anyhow::{Result, ensure};
use k8s_openapi::api::{core::v1::Service, events::v1::Event};
use kube::{Api, api::ListParams};
use linkspan_tests::eventually;
use serde_json::json;

/// By one Event about the Service, in its own namespace, however often the Service changes and the controller starts.
pub(crate) async fn is_told_once(pair: &mut Pair) -> Result<()> {
    let events: Api<Event> = api(&pair.in_west, "private");
    let told = async |name: &str| -> Result<Vec<Event>> {
        let about = |e: &Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name);
        let found: Vec<Event> =
            events.list(&ListParams::default()).await?.items.into_iter().filter(about).collect();
        ensure!(!found.is_empty(), "no Event about {name}");
        Ok(found)
    };
    let first = eventually(SOON, "the withheld Service to be told of", async || told("hidden").await).await;
    let note = first[0].note.clone().unwrap_or_default();
    ensure!(first[0].reason.as_deref() == Some("ExportWithheld"), "{first:?}");
    ensure!(note.contains("`exports!=never`") && note.contains("namespace private"), "{note}");
    let services: Api<Service> = api(&pair.in_west, "private");
    merge(&services, "hidden", &json!({"metadata": {"labels": {"team": "red"}}})).await;
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    pair.apply(&pair.west, &[service("private", "later", &http)]).await?;
    eventually(SOON, "the next one to be told of", async || told("later").await).await;
    pair.west.controller()?.kill()?;
    pair.apply(&pair.west, &[service("private", "last", &http)]).await?;
    pair.west.start_controller().await?;
    eventually(SOON, "one more to be told of after a restart", async || told("last").await).await;
    for name in ["hidden", "later", "last"] {
        let found = told(name).await?;
        ensure!(found.len() == 1, "{name} is told {} times: {found:?}", found.len());
        ensure!(found[0].series.is_none(), "it is repeated: {found:?}");
    }
    Ok(())
}
