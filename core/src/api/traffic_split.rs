//! The `TrafficSplit` resource of SMI (`split.smi-spec.io`): how the traffic of one Service, the apex, is shared out.
//!
//! Its versions v1alpha1 to v1alpha4 differ in the form of weights (quantities or whole numbers) and in `matches`. One
//! schema takes them all, and nothing is converted: a weight is read by its value, whatever version it was written in.

use crate::api::condition::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// API group of TrafficSplits.
pub const GROUP: &str = "split.smi-spec.io";
/// Served versions, newest first. A cluster where somebody else brought the definition may serve fewer.
pub const VERSIONS: [&str; 4] = ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];

/// How the traffic of one Service is shared out.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "split.smi-spec.io",
    version = "v1alpha4",
    kind = "TrafficSplit",
    plural = "trafficsplits",
    singular = "trafficsplit",
    shortname = "ts",
    namespaced,
    status = "TrafficSplitStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.service"}"#,
    printcolumn = r#"{"name":"Active","type":"string","jsonPath":".status.conditions[?(@.type==\"Active\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TrafficSplitSpec {
    /// The apex: the Service that clients call.
    #[serde(default)]
    pub service: String,
    /// Who serves them. The apex itself may be among them: it means the apex's own pods.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Only requests that one of these selects are shared out; all others go to the apex's own pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<MatchRef>,
}

/// One backend of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// A Service in the namespace of the split.
    #[serde(default)]
    pub service: String,
    /// Its share, relative to those of the other backends.
    #[serde(default)]
    pub weight: Weight,
}

/// What selects requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatchRef {
    /// API group; `specs.smi-spec.io` when absent.
    #[serde(default, rename = "apiGroup", skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// `HTTPRouteGroup`.
    #[serde(default)]
    pub kind: String,
    /// Its name, in the namespace of the split.
    #[serde(default)]
    pub name: String,
}

/// What became of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficSplitStatus {
    /// `Active`, `BackendsResolved` and, after somebody dropped our selector key, `SelectorContested`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A weight as it was written: a whole number or a quantity such as `500m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Weight {
    /// A whole number.
    Number(i64),
    /// A quantity.
    Quantity(String),
}

impl Default for Weight {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// A weight that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight {0} is no number from 0 to 1000000000 and no quantity such as 500m")]
pub struct WeightError(String);

/// Largest weight, so that sums of weights never overflow.
const MAX_WEIGHT: u64 = 1_000_000_000;

impl Weight {
    /// The weight in thousandths.
    ///
    /// # Errors
    /// When it is negative, too large, or no number.
    pub fn thousandths(&self) -> Result<u64, WeightError> {
        let value = match self {
            Self::Number(number) => u64::try_from(*number).ok().and_then(|n| n.checked_mul(1000)),
            Self::Quantity(text) => thousandths(text.trim()),
        };
        value.filter(|v| *v <= MAX_WEIGHT * 1000).ok_or_else(|| WeightError(self.to_string()))
    }
}

/// Reads a quantity: digits, perhaps a fraction, perhaps one of `m`, `k`, `M`, `G`, `Ki`, `Mi`, `Gi`. What is smaller
/// than a thousandth counts as one, as in Kubernetes.
fn thousandths(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    u64::try_from(digits.checked_mul(factor)?.div_ceil(scale)).ok()
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Quantity(text) => text.fmt(f),
        }
    }
}

impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<u64> {
        let weight: Weight = serde_json::from_str(text).unwrap();
        weight.thousandths().ok()
    }

    #[test]
    fn weights_are_read_by_value() {
        for (text, value) in [
            ("80", Some(80_000)),
            ("0", Some(0)),
            ("\"80\"", Some(80_000)),
            ("\"800m\"", Some(800)),
            ("\"0.2\"", Some(200)),
            ("\"1.5k\"", Some(1_500_000)),
            ("\"2Ki\"", Some(2_048_000)),
            ("\"0.00001\"", Some(1)),
            ("-1", None),
            ("\"-1\"", None),
            ("\"\"", None),
            ("\".\"", None),
            ("\"1.2.3\"", None),
            ("\"much\"", None),
            ("2000000000", None),
        ] {
            assert_eq!(read(text), value, "{text}");
        }
    }

    #[test]
    fn the_seeds_example_is_read_in_each_version() {
        for (version, weights) in
            [("v1alpha1", ["\"800m\"", "\"200m\""]), ("v1alpha2", ["80", "20"]), ("v1alpha4", ["80", "20"])]
        {
            let text = format!(
                r#"{{"apiVersion": "split.smi-spec.io/{version}", "kind": "TrafficSplit",
                "metadata": {{"name": "my-api-split", "namespace": "default"}},
                "spec": {{"service": "my-api", "backends": [
                    {{"service": "my-api", "weight": {}}}, {{"service": "my-api-cluster-west", "weight": {}}}]}}}}"#,
                weights[0], weights[1]
            );
            let split: TrafficSplit = serde_json::from_str(&text).unwrap();
            let weights: Vec<u64> =
                split.spec.backends.iter().map(|b| b.weight.thousandths().unwrap()).collect();
            assert_eq!(weights[0], weights[1] * 4, "{version}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", number: i64) {
            let _ = Weight::Quantity(text).thousandths();
            let _ = Weight::Number(number).thousandths();
        }

        #[test]
        fn a_number_and_the_quantities_of_its_value_agree(n in 0u32..1_000_000) {
            let number = Weight::Number(i64::from(n)).thousandths();
            for text in [n.to_string(), format!("{}m", u64::from(n) * 1000)] {
                prop_assert_eq!(&Weight::Quantity(text).thousandths(), &number);
            }
        }
    }
}
