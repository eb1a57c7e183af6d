//! Label selectors as Links use them: like Kubernetes', but an empty selector matches nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// Whether `labels` satisfy `selector`. An absent or empty selector, and one with an operator Kubernetes does not
/// know, match nothing: what a Link does not name is not mirrored.
pub fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    let exact = selector.match_labels.as_ref();
    let rules = selector.match_expressions.as_deref().unwrap_or_default();
    if exact.is_none_or(BTreeMap::is_empty) && rules.is_empty() {
        return false;
    }
    exact.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && rules.iter().all(|rule| {
            let found = labels.get(&rule.key);
            let listed = |value: &String| rule.values.iter().flatten().any(|v| v == value);
            match rule.operator.as_str() {
                "In" => found.is_some_and(listed),
                "NotIn" => !found.is_some_and(listed),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn says(selector: Value, labels: Value) -> bool {
        let selector: LabelSelector = from_value(selector).unwrap();
        matches(Some(&selector), &from_value(labels).unwrap())
    }

    #[test]
    fn selects_as_kubernetes_does_but_nothing_when_empty() {
        assert!(!matches(None, &BTreeMap::new()));
        assert!(!says(json!({}), json!({"a": "1"})));
        assert!(says(json!({"matchLabels": {"a": "1"}}), json!({"a": "1", "b": "2"})));
        assert!(!says(json!({"matchLabels": {"a": "1"}}), json!({"a": "2"})));
        let rule = |op: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": op, "values": values}]});
        assert!(says(rule("In", json!(["1", "2"])), json!({"a": "2"})));
        assert!(!says(rule("NotIn", json!(["1"])), json!({"a": "1"})));
        assert!(says(rule("NotIn", json!(["1"])), json!({})));
        assert!(says(rule("Exists", json!(null)), json!({"a": ""})));
        assert!(says(rule("DoesNotExist", json!(null)), json!({})));
        assert!(!says(rule("Near", json!(["1"])), json!({"a": "1"})));
    }
}
