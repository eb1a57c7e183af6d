//! Checks before an installation: may it be done, and is anything in the way.

use crate::{
    checks::{Category, Check},
    commands::install::is_ours,
    observe::installation::Answer,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is created at installation: group, resource, whether it is in the namespace.
pub const CREATED: [(&str, &str, bool); 11] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", false),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("apps", "deployments", true),
];

/// The checks: `rights` says for each resource of [`CREATED`] whether the user may create it.
pub fn pre(
    rights: &Answer<BTreeMap<String, bool>>,
    definitions: &Answer<BTreeMap<String, Option<Value>>>,
) -> Category {
    let mut checks = vec![];
    match rights {
        Err(e) => checks.push(Check::wrong("can ask for one's own rights", e, "check --context and --as")),
        Ok(rights) => checks.extend(rights.iter().map(|(resource, allowed)| {
            let description = format!("can create {resource}");
            if *allowed {
                return Check::well(description, vec![]);
            }
            Check::wrong(description, "not allowed for this user", "install as a cluster administrator")
        })),
    }
    let description = "no other product owns the Link CRD";
    match definitions {
        Err(e) => {
            checks.push(Check::wrong(description, e, "ask for the right to read CustomResourceDefinitions"));
        }
        Ok(found) => {
            let foreign: Vec<&str> = found
                .iter()
                .filter(|(_, labels)| labels.as_ref().is_some_and(|labels| !is_ours(labels)))
                .map(|(name, _)| name.as_str())
                .collect();
            checks.push(if foreign.is_empty() {
                Check::well(description, vec![])
            } else {
                Check::wrong(
                    description,
                    format!("{} is another product's", foreign.join(", ")),
                    "remove that product first",
                )
            });
        }
    }
    Category { name: "pre-install", checks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_rights_and_foreign_definitions_are_told() {
        let rights = Ok(BTreeMap::from([("namespaces".to_owned(), true), ("deployments".to_owned(), false)]));
        let definitions = Ok(BTreeMap::from([("links.multicluster.linkerd.io".to_owned(), Some(json!({})))]));
        let category = pre(&rights, &definitions);
        let failed: Vec<&str> =
            category.checks.iter().filter(|c| c.failed()).map(|c| c.description.as_str()).collect();
        assert_eq!(failed, ["can create deployments", "no other product owns the Link CRD"]);
    }
}
