//! Pods as far as anything here looks at them. All of a pod's specification is read by nobody, and reading it takes code,
//! memory and time: gateways follow every pod of their cluster.

use k8s_openapi::{api::core::v1::PodIP, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = k8s_openapi::api::core::v1::Pod)]
pub struct Pod {
    /// Who it is.
    pub metadata: ObjectMeta,
    /// What it should be.
    #[serde(default)]
    pub spec: PodSpec,
    /// What it is.
    #[serde(default)]
    pub status: PodStatus,
}

/// What a pod should be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The account that it runs as.
    #[serde(default)]
    pub service_account_name: String,
    /// Whether it shares its node's addresses.
    #[serde(default)]
    pub host_network: bool,
}

/// What a pod is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Pending, Running, Succeeded or Failed; empty when unknown.
    #[serde(default)]
    pub phase: String,
    /// Its addresses.
    #[serde(default, rename = "podIPs")]
    pub pod_ips: Vec<PodIP>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_as_kubernetes_writes_it() {
        let text = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"},
            "spec": {"containers": [{"name": "c", "image": "d"}], "serviceAccountName": "e", "hostNetwork": true},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}"#;
        let pod: Pod = serde_json::from_str(text).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("a"));
        assert_eq!((pod.spec.service_account_name.as_str(), pod.spec.host_network), ("e", true));
        assert_eq!(pod.status.phase, "Running");
        let ips: Vec<&str> = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str()).collect();
        assert_eq!(ips, ["10.0.0.1", "fd00::1"]);
        let bare: Pod =
            serde_json::from_str(r#"{"metadata": {"name": "a"}, "spec": {"containers": []}}"#).unwrap();
        assert!(bare.status.pod_ips.is_empty() && !bare.spec.host_network);
    }
}
