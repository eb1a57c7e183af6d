//! Whether the roles here allow what this version needs.

use crate::{
    checks::{Check, none_wrong},
    manifests::object::{Key, Object},
    observe::installation::Answer,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whether every role of `wanted` is there and allows everything it should.
pub(super) fn granted(found: &Answer<BTreeMap<Key, Option<Value>>>, wanted: &[Object], apply: &str) -> Check {
    let description = "gateway and controller have the rights they need";
    let found = match found {
        // Who may not read roles can still use everything else here.
        Err(e) => return Check::warning(description, e, "ask for the right to read roles"),
        Ok(found) => found,
    };
    let mut wrong = vec![];
    for object in wanted {
        let key = Key::of(object);
        match found.get(&key) {
            Some(Some(rules)) => {
                let missing = missing(&object["rules"], rules);
                wrong.extend(
                    missing.into_iter().map(|right| format!("{} {} lacks: {right}", key.kind, key.name)),
                );
            }
            _ => wrong.push(format!("{} {} is missing", key.kind, key.name)),
        }
    }
    let advice = format!(
        "run `{apply}`; roles linkspan-link-NAME come with the output of `link-cli link --cluster-name NAME`"
    );
    none_wrong(description, [], wrong, advice)
}

/// One thing that is allowed: verb, group, resource, name or `*`.
type Right = (String, String, String, String);

fn missing(wanted: &Value, found: &Value) -> Vec<String> {
    let found = rights(found);
    let covers = |right: &Right| {
        let (verb, group, resource, name) = right;
        let verbs = [verb.as_str(), "*"];
        verbs.iter().any(|verb| {
            [group.as_str(), "*"].iter().any(|group| {
                [resource.as_str(), "*"].iter().any(|resource| {
                    [name.as_str(), "*"].iter().any(|name| {
                        found.contains(&(
                            (*verb).to_owned(),
                            (*group).to_owned(),
                            (*resource).to_owned(),
                            (*name).to_owned(),
                        ))
                    })
                })
            })
        })
    };
    let lacking = rights(wanted).into_iter().filter(|right| !covers(right));
    lacking
        .map(|(verb, group, resource, name)| {
            let group = if group.is_empty() { String::new() } else { format!(".{group}") };
            let name = if name == "*" { String::new() } else { format!(" {name}") };
            format!("{verb} {resource}{group}{name}")
        })
        .collect()
}

fn rights(rules: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push("*".to_owned());
        }
        for verb in texts(&rule["verbs"]) {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for name in &names {
                        all.insert((verb.clone(), group.clone(), resource.clone(), name.clone()));
                    }
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::{
        rights::{controller, remote_access_role},
        values::Values,
    };
    use serde_json::json;

    #[test]
    fn a_right_that_was_taken_away_is_named() {
        let role = remote_access_role();
        let key = Key::of(&role);
        let check = |rules: Option<Value>| {
            let found = Ok(BTreeMap::from([(key.clone(), rules)]));
            granted(&found, std::slice::from_ref(&role), "install")
        };
        assert!(!check(Some(role["rules"].clone())).failed());
        let less = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["get"]}]);
        let text = format!("{:?}", check(Some(less)).verdict);
        assert!(text.contains("lacks: create certificatesigningrequests.certificates.k8s.io"), "{text}");
        assert!(check(None).failed());
        let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        assert!(!check(Some(all)).failed(), "more than is needed is enough");
    }

    #[test]
    fn a_right_to_all_names_covers_one_and_not_the_other_way_round() {
        let one =
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]);
        let all = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        assert_eq!(missing(&one, &all), Vec::<String>::new());
        assert_eq!(missing(&all, &one), ["get secrets"]);
        for role in controller("ns", &Values::default()).iter().filter(|object| object["rules"].is_array()) {
            assert_eq!(missing(&role["rules"], &role["rules"]), Vec::<String>::new());
        }
    }
}
