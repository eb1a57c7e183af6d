//! What can be chosen at installation: the same values, by the same names, as the chart's `values.yaml`.

use linkspan_core::api::{labels::GATEWAY_PORT, selector_text};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Choices for an installation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// Put before image names, e.g. `registry.example/mirror`; empty: the names as they are.
    pub registry: String,
    /// Tag of the images; empty: the version of this tool.
    pub image_version: String,
    /// When nodes fetch images.
    pub image_pull_policy: String,
    /// Three gateways and two controllers, spread over nodes and zones, with disruption budgets.
    pub ha: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// `plain` or `json`.
    pub log_format: String,
    /// Label selector of the namespaces whose Services may be exported; empty: all.
    pub export_namespaces: String,
    /// Label selector of the missing namespaces that are made for mirrors; empty: none.
    pub create_namespaces: String,
    /// The gateway.
    pub gateway: GatewayValues,
    /// The mirror controller.
    pub controller: ControllerValues,
    /// NetworkPolicies around both.
    pub network_policies: NetworkPolicyValues,
    /// A PodMonitor for the Prometheus operator.
    pub pod_monitor: PodMonitorValues,
}

/// Choices for the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayValues {
    /// Pods; absent: 2, or 3 with `ha`.
    pub replicas: Option<u32>,
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub service_type: String,
    /// Port of the Service that tunnels arrive at.
    pub port: u16,
    /// Annotations of the Service, e.g. for the cloud's load balancer.
    pub service_annotations: BTreeMap<String, String>,
    /// Resource requests and limits of a pod.
    pub resources: Value,
}

/// Choices for the mirror controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControllerValues {
    /// Pods; absent: 1, or 2 with `ha`.
    pub replicas: Option<u32>,
    /// Resource requests and limits of a pod.
    pub resources: Value,
}

/// Choices for NetworkPolicies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkPolicyValues {
    /// Whether there are any.
    pub enabled: bool,
    /// Who may read the admin pages besides the controller: NetworkPolicyPeers.
    pub admin_from: Vec<Value>,
}

/// Choices for the PodMonitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodMonitorValues {
    /// Whether there is one.
    pub enabled: bool,
    /// Time between two scrapes, in Prometheus' form.
    pub interval: String,
    /// Labels by which a Prometheus finds it.
    pub labels: BTreeMap<String, String>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            registry: String::new(),
            image_version: String::new(),
            image_pull_policy: "IfNotPresent".to_owned(),
            ha: false,
            log_level: "info".to_owned(),
            log_format: "plain".to_owned(),
            export_namespaces: String::new(),
            create_namespaces: String::new(),
            gateway: GatewayValues::default(),
            controller: ControllerValues::default(),
            network_policies: NetworkPolicyValues::default(),
            pod_monitor: PodMonitorValues::default(),
        }
    }
}

impl Default for NetworkPolicyValues {
    fn default() -> Self {
        let monitoring = json!({"kubernetes.io/metadata.name": "monitoring"});
        Self { enabled: false, admin_from: vec![json!({"namespaceSelector": {"matchLabels": monitoring}})] }
    }
}

impl Default for PodMonitorValues {
    fn default() -> Self {
        Self { enabled: false, interval: "30s".to_owned(), labels: BTreeMap::new() }
    }
}

impl Default for GatewayValues {
    fn default() -> Self {
        Self {
            replicas: None,
            service_type: "LoadBalancer".to_owned(),
            port: GATEWAY_PORT,
            service_annotations: BTreeMap::new(),
            resources: json!({"requests": {"cpu": "50m", "memory": "64Mi"}}),
        }
    }
}

impl Default for ControllerValues {
    fn default() -> Self {
        Self { replicas: None, resources: json!({"requests": {"cpu": "20m", "memory": "64Mi"}}) }
    }
}

/// A value that cannot be used: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    /// A `--set` without `=`.
    #[error("--set {0:?} is not of the form <name>=<value>, e.g. gateway.replicas=3")]
    Form(String),
    /// A name below something that has no parts.
    #[error(
        "--set {0:?} names a part of something that has no parts; see the chart's values.yaml for the names"
    )]
    Path(String),
    /// A name or type that is not known.
    #[error("values cannot be used: {0}; see the chart's values.yaml for names and types")]
    Unknown(String),
    /// A value outside of its range.
    #[error("{name} is {value:?}: {expected}")]
    Range {
        /// Name of the value.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
}

impl Values {
    /// The defaults, overlaid by each of `files` (parsed YAML) and then by each of `sets` (`a.b=c`).
    ///
    /// # Errors
    /// The first name, type or value that cannot be used.
    pub fn from_layers(files: Vec<Value>, sets: &[String]) -> Result<Self, ValuesError> {
        let mut all = json!(Self::default());
        for file in files.into_iter().filter(|file| !file.is_null()) {
            overlay(&mut all, file);
        }
        for set in sets {
            let (path, text) = set.split_once('=').ok_or_else(|| ValuesError::Form(set.clone()))?;
            let value = serde_norway::from_str(text).unwrap_or_else(|_| json!(text));
            *place(&mut all, path).ok_or_else(|| ValuesError::Path(set.clone()))? = value;
        }
        let values: Self = serde_json::from_value(all).map_err(|e| ValuesError::Unknown(e.to_string()))?;
        values.checked()
    }

    /// These values, if all of them are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn checked(self) -> Result<Self, ValuesError> {
        let one_of = |name, value: &str, allowed: &[&str], expected| {
            if allowed.contains(&value) {
                return Ok(());
            }
            Err(ValuesError::Range { name, value: value.to_owned(), expected })
        };
        one_of(
            "gateway.serviceType",
            &self.gateway.service_type,
            &["LoadBalancer", "NodePort", "ClusterIP"],
            "LoadBalancer, NodePort or ClusterIP is expected",
        )?;
        one_of("logFormat", &self.log_format, &["plain", "json"], "plain or json is expected")?;
        one_of(
            "imagePullPolicy",
            &self.image_pull_policy,
            &["IfNotPresent", "Always", "Never"],
            "IfNotPresent, Always or Never is expected",
        )?;
        for (name, selector) in
            [("exportNamespaces", &self.export_namespaces), ("createNamespaces", &self.create_namespaces)]
        {
            if !selector.is_empty() && selector_text::parse(selector).is_err() {
                let expected = "a label selector such as team in (a,b) is expected";
                return Err(ValuesError::Range { name, value: selector.clone(), expected });
            }
        }
        let levels = ["error", "warn", "info", "debug", "trace"];
        one_of("logLevel", &self.log_level, &levels, "error, warn, info, debug or trace is expected")?;
        for (name, replicas) in
            [("gateway.replicas", self.gateway.replicas), ("controller.replicas", self.controller.replicas)]
        {
            if replicas == Some(0) {
                return Err(ValuesError::Range {
                    name,
                    value: "0".to_owned(),
                    expected: "at least 1 is expected",
                });
            }
        }
        if self.gateway.port == 0 {
            let expected = "a port from 1 to 65535 is expected";
            return Err(ValuesError::Range { name: "gateway.port", value: "0".to_owned(), expected });
        }
        Ok(self)
    }

    /// Pods of the gateway.
    pub fn gateway_replicas(&self) -> u32 {
        self.gateway.replicas.unwrap_or(if self.ha { 3 } else { 2 })
    }

    /// Pods of the controller.
    pub fn controller_replicas(&self) -> u32 {
        self.controller.replicas.unwrap_or(if self.ha { 2 } else { 1 })
    }

    /// The full name of our image `part`, e.g. `gateway`.
    pub fn image(&self, part: &str) -> String {
        let version = if self.image_version.is_empty() { crate::cli::VERSION } else { &self.image_version };
        let registry = self.registry.trim_end_matches('/');
        let slash = if registry.is_empty() { "" } else { "/" };
        format!("{registry}{slash}linkspan/{part}:{version}")
    }
}

/// Lays `over` upon `base`: maps are merged, anything else is replaced.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// The place that the dotted `path` names, made where it is missing. `\.` is a dot within a name.
fn place<'a>(all: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let hidden = path.replace("\\.", "\u{0}");
    let mut here = all;
    for part in hidden.split('.') {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        here = here.as_object_mut()?.entry(part.replace('\u{0}', ".")).or_insert(Value::Null);
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_overlay_each_other_in_order() {
        let file = json!({"ha": true, "gateway": {"port": 5000}});
        let sets = ["gateway.replicas=4".to_owned(), "gateway.serviceAnnotations.a\\.b/c='1'".to_owned()];
        let values = Values::from_layers(vec![Value::Null, file], &sets).unwrap();
        assert_eq!(
            (values.gateway.port, values.gateway_replicas(), values.controller_replicas()),
            (5000, 4, 2)
        );
        assert_eq!(values.gateway.service_annotations["a.b/c"], "1");
        assert_eq!(values.gateway.service_type, "LoadBalancer");
    }

    #[test]
    fn each_mistake_is_told() {
        let set = |text: &str| Values::from_layers(vec![], &[text.to_owned()]).unwrap_err().to_string();
        assert!(set("ha").contains("<name>=<value>"));
        assert!(set("gatway.port=1").contains("gatway"));
        assert!(set("ha.b=1").contains("no parts"));
        assert!(set("gateway.port=70000").contains("70000"));
        assert!(set("gateway.port=0").contains("1 to 65535"));
        assert!(set("gateway.serviceType=Load").contains("NodePort"));
        assert!(set("gateway.replicas=0").contains("at least 1"));
        assert!(set("logFormat=xml").contains("json"));
    }

    #[test]
    fn images_are_named_by_registry_and_version() {
        let mut values = Values::default();
        assert_eq!(values.image("gateway"), format!("linkspan/gateway:{}", crate::cli::VERSION));
        values.registry = "registry.example/a/".to_owned();
        values.image_version = "1.2.3".to_owned();
        assert_eq!(values.image("gateway"), "registry.example/a/linkspan/gateway:1.2.3");
    }
}
