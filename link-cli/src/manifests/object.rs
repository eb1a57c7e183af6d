//! Kubernetes objects as JSON values, and what they have in common.

use linkspan_core::api::crds::PART_OF;
use serde_json::{Map, Value, json};

/// An object on its way to an API server or to a YAML document.
pub type Object = Value;

/// Which object is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `v1`, `apps/v1`, ...
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for an object of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object in `namespace`, or of the whole cluster where that is empty.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let own = str::to_owned;
        Self { api_version: own(api_version), kind: own(kind), namespace: own(namespace), name: own(name) }
    }

    /// The key of `object`.
    pub fn of(object: &Object) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// The object reduced to what `kubectl delete -f` needs.
    pub fn stub(&self) -> Object {
        let mut metadata = json!({"name": self.name});
        if !self.namespace.is_empty() {
            metadata["namespace"] = json!(self.namespace);
        }
        json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata})
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " in namespace {}", self.namespace) }
    }
}

/// Metadata of an object of ours; an empty namespace stands for the whole cluster.
pub fn metadata(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = Map::new();
    all.insert(PART_OF.0.to_owned(), json!(PART_OF.1));
    for (key, value) in labels {
        all.insert((*key).to_owned(), json!(value));
    }
    let mut metadata = json!({"name": name, "labels": all});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// Removes absent fields, which types print as `null`.
pub fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
