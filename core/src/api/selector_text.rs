//! Label selectors as kubectl's `-l` writes them, read into a Link's form.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
///
/// # Errors
/// The part that has none of these forms.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut exact = BTreeMap::new();
    let mut rules = Vec::new();
    for part in parts(text) {
        let part = part.trim();
        let wrong = || {
            format!(
                "{part:?} is not of the form key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
            )
        };
        match rule(part).ok_or_else(wrong)? {
            Rule::Exact(key, value) => {
                exact.insert(key, value);
            }
            Rule::Expression(expression) => rules.push(expression),
        }
    }
    Ok(LabelSelector {
        match_labels: (!exact.is_empty()).then_some(exact),
        match_expressions: (!rules.is_empty()).then_some(rules),
    })
}

enum Rule {
    Exact(String, String),
    Expression(LabelSelectorRequirement),
}

/// Splits at commas that stand outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (vec![], 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn rule(part: &str) -> Option<Rule> {
    let expression = |key: &str, operator: &str, values: Option<Vec<String>>| {
        let (key, operator) = (label_key(key)?, operator.to_owned());
        Some(Rule::Expression(LabelSelectorRequirement { key, operator, values }))
    };
    if let Some(key) = part.strip_prefix('!') {
        return expression(key, "DoesNotExist", None);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return expression(key, "NotIn", Some(vec![label_value(value)?]));
    }
    if let Some((key, value)) = part.split_once('=') {
        return Some(Rule::Exact(label_key(key)?, label_value(value.strip_prefix('=').unwrap_or(value))?));
    }
    if let Some(head) = part.strip_suffix(')') {
        let (head, values) = head.split_once('(')?;
        let values: Vec<String> = values.split(',').map(label_value).collect::<Option<_>>()?;
        let (key, word) = head.trim().split_once(char::is_whitespace)?;
        let operator = match word.trim() {
            "in" => "In",
            "notin" => "NotIn",
            _ => return None,
        };
        return expression(key, operator, Some(values));
    }
    expression(part, "Exists", None)
}

fn label_key(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(allowed)).then(|| text.to_owned())
}

fn label_value(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (text.len() <= 63 && text.chars().all(allowed)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn kubectls_forms_are_read() {
        let selector = parse("a/b=c, d==e,f!=g,h in (i, j),k notin (l),m,!n").unwrap();
        assert_eq!(
            json!(selector),
            json!({
                "matchLabels": {"a/b": "c", "d": "e"},
                "matchExpressions": [
                    {"key": "f", "operator": "NotIn", "values": ["g"]},
                    {"key": "h", "operator": "In", "values": ["i", "j"]},
                    {"key": "k", "operator": "NotIn", "values": ["l"]},
                    {"key": "m", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"},
                ],
            })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            exact in proptest::collection::btree_map("[a-z][a-z0-9./-]{0,10}", "[a-z0-9.-]{0,10}", 0..3),
            key in "[a-z][a-z0-9./-]{0,10}",
            values in proptest::collection::vec("[a-z0-9]{1,8}", 1..4),
        ) {
            let mut parts: Vec<String> = exact.iter().map(|(key, value)| format!("{key}={value}")).collect();
            parts.push(format!("{key} notin ({})", values.join(",")));
            let selector = parse(&parts.join(",")).unwrap();
            prop_assert_eq!(selector.match_labels.unwrap_or_default(), exact);
            let rules = selector.match_expressions.unwrap();
            prop_assert_eq!((&rules[0].key, &rules[0].values), (&key, &Some(values)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "a=b,", "a b", "a near (b)", "a in b", "=b", "a=b c", "!", "a in (b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
