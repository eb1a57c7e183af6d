//! Which apexes' pods the gateways may not reach: asks the API for pods and namespaces, as far as there are policies.

use super::{Splitter, call};
use crate::{
    snapshot::Key,
    split::{
        decide::Why,
        policy::{Visitor, barrier},
        table::{has_key, user_selector},
    },
};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::util::intstr::IntOrString};
use kube::{Api, ResourceExt, api::ListParams};
use linkspan_core::api::{labels::COMPONENT, pod::Pod};
use std::collections::BTreeMap;

impl Splitter {
    /// Apexes whose pods a network policy keeps the gateways from.
    pub(super) async fn barred(&self) -> BTreeMap<Key, Why> {
        let apexes: Vec<(Key, BTreeMap<String, String>, Vec<IntOrString>)> = self.read(|table| {
            let policed = |namespace: &str| table.policies.items.keys().any(|key| key.namespace == namespace);
            let splits = table.splits.items.iter().filter(|(key, _)| policed(&key.namespace));
            splits
                .filter_map(|(key, split)| {
                    let apex = Key::new(&key.namespace, &split.spec.service);
                    let service = table.services.known.items.get(&apex)?;
                    let ports = service.spec.as_ref()?.ports.iter().flatten();
                    let ports = ports.map(|p| p.target_port.clone().unwrap_or(IntOrString::Int(p.port)));
                    Some((apex, user_selector(service), ports.collect()))
                })
                .collect()
        });
        let mut barred = BTreeMap::new();
        if apexes.is_empty() {
            return barred;
        }
        let visitor = self.visitor().await;
        for (apex, selector, ports) in apexes.into_iter().filter(|(_, selector, _)| !selector.is_empty()) {
            let text: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let found = match &visitor {
                Ok(visitor) => self.pods(&apex.namespace, &text.join(",")).await.map(|pods| (pods, visitor)),
                Err(error) => Err(error.clone()),
            };
            let why = match found {
                Ok((pods, visitor)) => self.read(|table| {
                    let here = table.policies.items.iter().filter(|(key, _)| key.namespace == apex.namespace);
                    let policies: Vec<_> = here.map(|(_, policy)| policy).collect();
                    let labels: Vec<_> = pods.into_iter().map(|(labels, _)| labels).collect();
                    barrier(&policies, &labels, &ports, visitor)
                }),
                // What is not known for certain is not taken over; what is taken over stays.
                Err(error) => {
                    tracing::warn!(%apex, error, "network policies cannot be checked; trying again");
                    let held = self.read(|t| t.services.known.items.get(&apex).is_some_and(has_key));
                    (!held).then(|| "those that cannot be checked now".to_owned())
                }
            };
            if let Some(names) = why {
                let message = format!(
                    "NetworkPolicy {names} does not let the gateways reach the pods of Service {}: admit the pods of \
                     namespace {} labelled {COMPONENT}=gateway",
                    apex.name, self.namespace
                );
                barred.insert(apex, Why::new("NetworkPolicy", message));
            }
        }
        barred
    }

    /// The gateways, as policies see them.
    async fn visitor(&self) -> Result<Visitor, String> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let namespace = call(namespaces.get(&self.namespace)).await?;
        Ok(Visitor {
            namespace: self.namespace.clone(),
            namespace_labels: namespace.metadata.labels.unwrap_or_default(),
            pods: self.pods(&self.namespace, &format!("{COMPONENT}=gateway")).await?,
        })
    }

    /// Labels and addresses of the pods that `selector` selects.
    async fn pods(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<(BTreeMap<String, String>, Vec<std::net::IpAddr>)>, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let pods = call(api.list(&ListParams::default().labels(selector))).await?;
        let ips = |pod: &Pod| pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        Ok(pods.items.iter().map(|pod| (pod.labels().clone(), ips(pod))).collect())
    }
}
