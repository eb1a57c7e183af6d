//! Gives all split Services back to Kubernetes, without a controller: for `link-cli uninstall`, Helm's pre-delete hook,
//! and a controller whose installation is being deleted.
//!
//! The order is that of the controller: the key leaves each apex's selector, Kubernetes fills its own slices again,
//! nobody is sent to the gateways any more, and only then what we made goes. Done twice it does nothing. Nobody may be
//! there who adds the key again: stop the controller first.

use crate::{
    api::labels::{MANAGED_BY, SHADOW, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT},
    process::kube_client::as_manager,
};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{EndpointConditions, EndpointSlice},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Longest time one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Tries at one Service that somebody else changes at the same time.
const TRIES: usize = 5;

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait until Kubernetes lists an apex's pods again.
    pub refill: Duration,
    /// From when nobody is sent to the gateways until the slices that name them go.
    pub closed: Duration,
}

impl Patience {
    /// For when there is time.
    pub fn long() -> Self {
        Self { refill: Duration::from_secs(10), closed: Duration::from_secs(5) }
    }

    /// For a process that is about to be killed.
    pub fn short() -> Self {
        Self { refill: Duration::from_secs(2), closed: Duration::from_millis(1500) }
    }
}

/// Gives all back; answers the names of the Services, `<namespace>/<name>`.
///
/// # Errors
/// One sentence on the first thing that cannot be done; what was done stays done.
pub async fn undo_splits(client: &Client, patience: Patience) -> Result<Vec<String>, String> {
    let split = ListParams::default().labels(SPLIT);
    let services = call("Services", Api::<Service>::all(client.clone()).list(&split)).await?.items;
    let (shadows, apexes): (Vec<Service>, Vec<Service>) =
        services.into_iter().partition(|s| s.labels().get(SPLIT).is_some_and(|value| value == SHADOW));
    for apex in &apexes {
        release(client, apex).await?;
    }
    refilled(client, &apexes, patience.refill).await?;
    let slices = Api::<EndpointSlice>::all(client.clone());
    let ours = ListParams::default().labels(&format!("{SPLIT},{SLICE_MANAGED_BY}={MANAGED_BY}"));
    let ours = call("EndpointSlices", slices.list(&ours)).await?.items;
    for slice in &ours {
        close(client, slice).await?;
    }
    if !ours.is_empty() {
        sleep(patience.closed).await;
    }
    for slice in &ours {
        delete::<EndpointSlice>(client, slice).await?;
    }
    for shadow in &shadows {
        delete::<Service>(client, shadow).await?;
    }
    for apex in &apexes {
        let patch = json!({"metadata": {"labels": {SPLIT: Value::Null}}});
        let api = Api::<Service>::namespaced(client.clone(), &apex.namespace().unwrap_or_default());
        gone_is_fine(
            call(&told(apex), api.patch(&apex.name_any(), &as_manager(), &Patch::Merge(patch))).await,
        )?;
    }
    Ok(apexes.iter().map(told).collect())
}

/// Takes the key out of the apex's selector, if it is there.
async fn release(client: &Client, apex: &Service) -> Result<(), String> {
    let api = Api::<Service>::namespaced(client.clone(), &apex.namespace().unwrap_or_default());
    for _ in 0..TRIES {
        let Some(now) = call(&told(apex), api.get_opt(&apex.name_any())).await? else { return Ok(()) };
        let Some(patch) = release_patch(&now) else { return Ok(()) };
        match timeout(CALL, api.patch(&apex.name_any(), &as_manager(), &patch)).await {
            Ok(Ok(_)) => return Ok(()),
            // Somebody was quicker: look again.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 409 | 422) => {}
            Ok(Err(error)) => return Err(format!("Service {} cannot be given back: {error}", told(apex))),
            Err(_) => return Err(format!("Service {}: the API server did not answer in time", told(apex))),
        }
    }
    Err(format!("Service {} is changed by somebody else all the time: try again", told(apex)))
}

/// The patch that takes our key off `apex` in exactly the state that was seen; `None` when it is not there.
pub fn release_patch(apex: &Service) -> Option<Patch<()>> {
    let selector = apex.spec.as_ref()?.selector.as_ref().filter(|s| s.contains_key(SPLIT))?;
    operations(&json!([
        {"op": "test", "path": "/spec/selector", "value": selector},
        {"op": "remove", "path": "/spec/selector/linkspan.dev~1split"},
    ]))
}

/// Reads operations of a JSON patch; all that are written here can be read.
pub fn operations(operations: &Value) -> Option<Patch<()>> {
    serde_json::from_value(operations.clone()).ok().map(Patch::Json)
}

/// Waits until Kubernetes lists the pods of all `apexes` again, or for `longest`.
async fn refilled(client: &Client, apexes: &[Service], longest: Duration) -> Result<(), String> {
    let end = Instant::now() + longest;
    for apex in apexes {
        let api = Api::<EndpointSlice>::namespaced(client.clone(), &apex.namespace().unwrap_or_default());
        let own = format!("{SLICE_SERVICE_NAME}={},{SLICE_MANAGED_BY}!={MANAGED_BY}", apex.name_any());
        let own = ListParams::default().labels(&own);
        loop {
            let slices = call("EndpointSlices", api.list(&own)).await?.items;
            let ready = |slice: &EndpointSlice| {
                slice.endpoints.iter().any(|e| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false)))
            };
            if slices.iter().any(ready) || Instant::now() >= end {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Nobody is sent to the endpoints of `slice` any more.
async fn close(client: &Client, slice: &EndpointSlice) -> Result<(), String> {
    let mut endpoints = slice.endpoints.clone();
    for endpoint in &mut endpoints {
        let no = Some(false);
        endpoint.conditions = Some(EndpointConditions { ready: no, serving: no, terminating: no });
    }
    let api = Api::<EndpointSlice>::namespaced(client.clone(), &slice.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"endpoints": endpoints}));
    gone_is_fine(call(&slice.name_any(), api.patch(&slice.name_any(), &as_manager(), &patch)).await)
}

async fn delete<K>(client: &Client, object: &K) -> Result<(), String>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    gone_is_fine(call(&object.name_any(), api.delete(&object.name_any(), &DeleteParams::background())).await)
}

fn told(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

const NOT_FOUND: &str = "not found";

fn gone_is_fine<T>(result: Result<T, String>) -> Result<(), String> {
    match result {
        Err(error) if error == NOT_FOUND => Ok(()),
        other => other.map(drop),
    }
}

async fn call<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(CALL, request).await {
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(NOT_FOUND.to_owned()),
        Ok(result) => result.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: the API server did not answer within {} s", CALL.as_secs())),
    }
}
