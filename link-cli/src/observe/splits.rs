//! Services that a TrafficSplit has taken over: their selector holds one key of ours, so that it matches no pod.

use crate::{cluster::Cluster, manifests::object::Key};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch},
};
use linkspan_core::api::labels::{MANAGED_BY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT};
use serde_json::{Value, json};

/// How often an undo is tried again when the Service changed between reading and writing.
const TRIES: u32 = 5;

/// The Services that are taken over.
///
/// # Errors
/// When Services cannot be listed.
pub async fn taken_over(cluster: &Cluster) -> anyhow::Result<Vec<Key>> {
    let services = cluster.list(&cluster.all::<Service>(), &ListParams::default(), "Services").await?;
    let ours = services.iter().filter(|service| is_taken_over(service));
    let mut keys: Vec<Key> = ours
        .map(|service| {
            Key::new("v1", "Service", &service.namespace().unwrap_or_default(), &service.name_any())
        })
        .collect();
    keys.sort();
    Ok(keys)
}

fn is_taken_over(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|s| s.contains_key(SPLIT))
}

/// Gives a Service back to its own pods: takes our key out of its selector, if that is still what was read.
///
/// # Errors
/// When the Service cannot be read or changed.
pub async fn undo(cluster: &Cluster, key: &Key) -> anyhow::Result<()> {
    let api = Api::<Service>::namespaced(cluster.client.clone(), &key.namespace);
    for left in (0..TRIES).rev() {
        let Some(service) = cluster.get(&api, &key.name, "Service").await? else { return Ok(()) };
        if !is_taken_over(&service) {
            return Ok(());
        }
        let patch = Patch::Json(serde_json::from_value(undoing(&service))?);
        match cluster.patch_service(key, &patch, false).await {
            Err(e) if left == 0 => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The JSON patch that takes our key, and our label, away.
fn undoing(service: &Service) -> Value {
    let escaped = SPLIT.replace('/', "~1");
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let mut patch = vec![
        json!({"op": "test", "path": "/spec/selector", "value": selector}),
        json!({"op": "remove", "path": format!("/spec/selector/{escaped}")}),
    ];
    if service.labels().contains_key(SPLIT) {
        patch.push(json!({"op": "remove", "path": format!("/metadata/labels/{escaped}")}));
    }
    Value::Array(patch)
}

/// Whether Kubernetes itself has found endpoints for a Service again.
///
/// # Errors
/// When slices cannot be listed.
pub async fn has_own_endpoints(cluster: &Cluster, key: &Key) -> anyhow::Result<bool> {
    let api = Api::<EndpointSlice>::namespaced(cluster.client.clone(), &key.namespace);
    let of = ListParams::default()
        .labels(&format!("{SLICE_SERVICE_NAME}={},{SLICE_MANAGED_BY}!={MANAGED_BY}", key.name));
    let slices = cluster.list(&api, &of, "EndpointSlices").await?;
    Ok(slices.iter().any(|slice| !slice.endpoints.is_empty()))
}

/// All slices of ours, in whatever namespace.
///
/// # Errors
/// When slices cannot be listed.
pub async fn our_slices(cluster: &Cluster) -> anyhow::Result<Vec<Key>> {
    let of = ListParams::default().labels(&format!("{SLICE_MANAGED_BY}={MANAGED_BY}"));
    let slices = cluster.list(&cluster.all::<EndpointSlice>(), &of, "EndpointSlices").await?;
    let key = |slice: &EndpointSlice| {
        let namespace = slice.namespace().unwrap_or_default();
        Key::new("discovery.k8s.io/v1", "EndpointSlice", &namespace, &slice.name_any())
    };
    Ok(slices.iter().map(key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    #[test]
    fn only_our_key_is_taken_away_and_only_from_the_selector_that_was_read() {
        let service: Service = from_value(json!({
            "metadata": {"name": "my-api", "labels": {"app": "x", SPLIT: "true"}},
            "spec": {"selector": {"app": "x", SPLIT: "true"}},
        }))
        .unwrap();
        assert!(is_taken_over(&service) && !is_taken_over(&Service::default()));
        assert_eq!(
            undoing(&service),
            json!([
                {"op": "test", "path": "/spec/selector", "value": {"app": "x", "linkspan.dev/split": "true"}},
                {"op": "remove", "path": "/spec/selector/linkspan.dev~1split"},
                {"op": "remove", "path": "/metadata/labels/linkspan.dev~1split"},
            ])
        );
    }
}
