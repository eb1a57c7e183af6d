//! The mirrors that stand in a cluster, and whether their slices have endpoints.

use crate::cluster::Cluster;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::api::{Api, ListParams};
use linkspan_core::api::{
    labels::{
        CLUSTER_NAME, MANAGED_BY, MIRRORED_SERVICE, REMOTE_SVC_FQ_NAME, SLICE_MANAGED_BY, SLICE_SERVICE_NAME,
    },
    slice::SliceRoute,
};
use std::collections::BTreeMap;

/// One mirror.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mirror {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Link that it comes from.
    pub link: String,
    /// `<service>.<namespace>.svc.<domain>` in the target cluster.
    pub target: String,
    /// Ports of the Service.
    pub ports: Vec<i32>,
    /// Endpoints that take traffic.
    pub ready: usize,
    /// Endpoints in all.
    pub endpoints: usize,
    /// Ports of the gateways that its slices claim.
    pub gateway_ports: Vec<u16>,
}

/// Number of mirrors by link; cheaper than [`all`].
///
/// # Errors
/// When Services cannot be listed.
pub async fn counts(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, usize>> {
    let params = ListParams::default().labels(&format!("{MIRRORED_SERVICE}=true"));
    let api: Api<Service> = cluster.all();
    let listed = api.list_metadata(&params).await.map_err(|e| cluster.explain("listing Services", &e))?;
    let mut counts = BTreeMap::new();
    for service in listed.items {
        let labels = service.metadata.labels.unwrap_or_default();
        *counts.entry(labels.get(CLUSTER_NAME).cloned().unwrap_or_default()).or_default() += 1;
    }
    Ok(counts)
}

/// All mirrors, sorted by namespace and name; of one link where `link` is given, of one namespace where that is.
///
/// # Errors
/// When Services or slices cannot be listed.
pub async fn all(
    cluster: &Cluster,
    link: Option<&str>,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Mirror>> {
    let of_link = link.map(|link| format!(",{CLUSTER_NAME}={link}")).unwrap_or_default();
    let services = ListParams::default().labels(&format!("{MIRRORED_SERVICE}=true{of_link}"));
    let slices = ListParams::default().labels(&format!("{SLICE_MANAGED_BY}={MANAGED_BY}"));
    let (service_api, slice_api): (Api<Service>, Api<EndpointSlice>) = match namespace {
        Some(namespace) => (
            Api::namespaced(cluster.client.clone(), namespace),
            Api::namespaced(cluster.client.clone(), namespace),
        ),
        None => (cluster.all(), cluster.all()),
    };
    let (services, slices) = tokio::join!(
        cluster.list(&service_api, &services, "Services"),
        cluster.list(&slice_api, &slices, "EndpointSlices")
    );
    Ok(joined(services?, &slices?))
}

fn joined(services: Vec<Service>, slices: &[EndpointSlice]) -> Vec<Mirror> {
    let mut endpoints: BTreeMap<(String, String), (usize, usize, Vec<u16>)> = BTreeMap::new();
    for slice in slices {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|labels| labels.get(SLICE_SERVICE_NAME)) else { continue };
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let (ready, total, ports) = endpoints.entry((namespace, service.clone())).or_default();
        let route = slice.metadata.annotations.as_ref().and_then(|a| SliceRoute::from_annotations(a).ok());
        ports.extend(route.into_iter().flat_map(|route| route.ports.into_keys()));
        *total += slice.endpoints.len();
        let is_ready = |c: &k8s_openapi::api::discovery::v1::EndpointConditions| c.ready != Some(false);
        *ready += slice.endpoints.iter().filter(|e| e.conditions.as_ref().is_none_or(is_ready)).count();
    }
    let mut mirrors: Vec<Mirror> = services
        .into_iter()
        .map(|service| {
            let metadata = service.metadata;
            let (namespace, name) =
                (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
            let (ready, total, mut gateway_ports) =
                endpoints.remove(&(namespace.clone(), name.clone())).unwrap_or_default();
            // The slices of both address families claim the same ports.
            gateway_ports.sort_unstable();
            gateway_ports.dedup();
            let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
            Mirror {
                link: metadata.labels.unwrap_or_default().remove(CLUSTER_NAME).unwrap_or_default(),
                target: metadata
                    .annotations
                    .unwrap_or_default()
                    .remove(REMOTE_SVC_FQ_NAME)
                    .unwrap_or_default(),
                ports: ports.iter().map(|port| port.port).collect(),
                namespace,
                name,
                ready,
                endpoints: total,
                gateway_ports,
            }
        })
        .collect();
    mirrors.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn endpoints_are_counted_over_all_slices_of_a_mirror() {
        let service: Service = from_value(json!({
            "metadata": {"name": "api-west", "namespace": "shop", "labels": {CLUSTER_NAME: "west"},
                "annotations": {REMOTE_SVC_FQ_NAME: "api.shop.svc.cluster.local"}},
            "spec": {"ports": [{"port": 80}]},
        }))
        .unwrap();
        let slice = |endpoints| -> EndpointSlice {
            from_value(json!({
                "metadata": {"name": "s", "namespace": "shop", "labels": {SLICE_SERVICE_NAME: "api-west"}},
                "addressType": "IPv4", "endpoints": endpoints,
            }))
            .unwrap()
        };
        let slices = [
            slice(json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}])),
            slice(
                json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.3"]}]),
            ),
        ];
        let mirrors = joined(vec![service], &slices);
        assert_eq!((mirrors[0].ready, mirrors[0].endpoints, mirrors[0].link.as_str()), (2, 3, "west"));
        assert_eq!(mirrors[0].target, "api.shop.svc.cluster.local");
    }
}
