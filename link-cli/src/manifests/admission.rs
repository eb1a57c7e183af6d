//! What the API server itself refuses: certificate requests of the installation's accounts for anything but
//! gateways' client certificates, under names of their own.
//!
//! RBAC cannot limit `create` to a signer or a name, so an account that may create requests could otherwise ask any
//! signer of the cluster.

use crate::manifests::object::{Object, metadata};
use linkspan_core::api::labels::SIGNER;
use serde_json::json;

/// Name of the policy and of its binding.
pub const POLICY: &str = "linkspan-link-accounts";

/// The policy and its binding.
pub fn policy(namespace: &str) -> Vec<Object> {
    let api = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata("", POLICY, &[]),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["certificates.k8s.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["certificatesigningrequests"],
            }]},
            "matchConditions": [{
                "name": "account-of-the-installation",
                "expression": format!("request.userInfo.username.startsWith('system:serviceaccount:{namespace}:')"),
            }],
            "validations": [
                {
                    "expression": format!("object.spec.signerName == '{SIGNER}'"),
                    "message": format!("accounts of Linkspan may ask only signer {SIGNER} for certificates"),
                },
                {
                    "expression": "object.metadata.name.startsWith('linkspan-' + request.userInfo.username.split(':')[3] + '-')",
                    "message": "certificate requests of Linkspan's accounts are named linkspan-<account>-<any>",
                },
            ],
        },
    });
    let binding = json!({
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata("", POLICY, &[]),
        "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
    });
    vec![policy, binding]
}
