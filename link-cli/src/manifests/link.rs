//! One link as objects for the importing cluster: credentials, CA bundle, the right to read both, the Link.

use crate::{
    cli::VERSION,
    manifests::{
        object::{Key, Object, metadata, without_nulls},
        rights,
    },
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::LabelSelector};
use linkspan_core::api::{
    credentials::{CA_BUNDLE, KUBECONFIG, REMOTE_KUBECONFIG_TYPE},
    identity::{Identity, TrustDomain},
    labels::{CLUSTER_NAME, CREATED_BY, EXPORTED},
    link::{Link, LinkSpec, ProbeSpec},
    names,
};
use serde_json::{Value, json};

/// Longest name of a link: mirrors are named `<service>-<link>`, and a Service's name has at most 63 characters.
pub const MAX_LINK_NAME: usize = 50;

/// What is known of the target cluster, and what was chosen.
#[derive(Clone, Debug)]
pub struct LinkInput {
    /// Name of the link.
    pub name: String,
    /// Namespace of the installation, in both clusters.
    pub namespace: String,
    /// DNS domain of the target cluster.
    pub domain: String,
    /// How the importing cluster reaches the target's API.
    pub api: ApiAccess,
    /// The target's CA bundle (PEM).
    pub ca_bundle: String,
    /// The target's trust domain.
    pub trust_domain: TrustDomain,
    /// Addresses of the target's gateway, at least one.
    pub gateway_addresses: Vec<String>,
    /// Port of the target's gateway.
    pub gateway_port: u16,
    /// Which exported Services are wanted; absent: all.
    pub selector: Option<LabelSelector>,
    /// Annotations not copied to mirrors.
    pub excluded_annotations: Vec<String>,
    /// Labels not copied to mirrors.
    pub excluded_labels: Vec<String>,
}

/// How the target's API server is reached.
#[derive(Clone)]
pub struct ApiAccess {
    /// `https://host:port`.
    pub server: String,
    /// CA of the API server (base64 of PEM, as in a kubeconfig); absent: the system's roots.
    pub ca_data: Option<String>,
    /// Name that the API server's certificate is checked for, where it is not the host's.
    pub tls_server_name: Option<String>,
    /// Bearer token of the link's account.
    pub token: String,
}

impl std::fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAccess").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A link's name that cannot be used: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkNameError {
    /// It cannot end a Service's name.
    #[error(
        "cluster name {0:?} cannot be used: Services are named <service>-<cluster name>, so it may hold lower-case letters, digits and '-' only, no dots"
    )]
    Form(String),
    /// Too little would be left for the Services' own names.
    #[error("cluster name {0:?} has {len} characters: at most {MAX_LINK_NAME} are possible, because Services are named <service>-<cluster name> with 63 characters in all", len = .0.len())]
    TooLong(String),
}

/// Whether a link may have this name.
///
/// # Errors
/// When mirrors could not be named after it.
pub fn check_name(name: &str) -> Result<(), LinkNameError> {
    if name.len() > MAX_LINK_NAME {
        return Err(LinkNameError::TooLong(name.to_owned()));
    }
    if names::is_dns_label(name) { Ok(()) } else { Err(LinkNameError::Form(name.to_owned())) }
}

/// The objects, in the order in which they are applied. The first holds a secret.
pub fn objects(input: &LinkInput) -> Vec<Object> {
    let mut all = vec![credentials(input), bundle(input)];
    all.extend(rights::link_reader(&input.namespace, &input.name));
    all.push(link(input));
    all
}

/// The objects that belong to a link, in the order in which they are removed: the Link first, so that the controller
/// tidies up while it still may.
pub fn keys(namespace: &str, link: &str) -> Vec<Key> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = rights::link_role(link);
    vec![
        Key::new("multicluster.linkerd.io/v1alpha3", "Link", namespace, link),
        Key::new("v1", "Secret", namespace, &names::credentials_secret(link)),
        Key::new("v1", "Secret", namespace, &names::live_credentials_secret(link)),
        Key::new("v1", "ConfigMap", namespace, &names::link_bundle_config_map(link)),
        Key::new(rbac, "RoleBinding", namespace, &role),
        Key::new(rbac, "Role", namespace, &role),
    ]
}

fn link_metadata(input: &LinkInput, name: &str) -> Value {
    metadata(&input.namespace, name, &[(CLUSTER_NAME, &input.name)])
}

fn credentials(input: &LinkInput) -> Object {
    let kubeconfig = ByteString(kubeconfig(&input.name, &input.api).into_bytes());
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": REMOTE_KUBECONFIG_TYPE,
        "metadata": link_metadata(input, &names::credentials_secret(&input.name)),
        "data": {KUBECONFIG: kubeconfig},
    })
}

/// A kubeconfig with one cluster, one user and one context, all named `name`.
pub fn kubeconfig(name: &str, api: &ApiAccess) -> String {
    let mut cluster = json!({"server": api.server});
    if let Some(ca) = &api.ca_data {
        cluster["certificate-authority-data"] = json!(ca);
    }
    if let Some(server_name) = &api.tls_server_name {
        cluster["tls-server-name"] = json!(server_name);
    }
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": api.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    crate::output::yaml(&document)
}

fn bundle(input: &LinkInput) -> Object {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": link_metadata(input, &names::link_bundle_config_map(&input.name)),
        "data": {CA_BUNDLE: input.ca_bundle},
    })
}

fn link(input: &LinkInput) -> Object {
    let exported = || LabelSelector {
        match_labels: Some([(EXPORTED.to_owned(), "true".to_owned())].into()),
        ..LabelSelector::default()
    };
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let identity = Identity::gateway(input.trust_domain.clone(), &input.namespace);
    let spec = LinkSpec {
        target_cluster_name: Some(input.name.clone()),
        target_cluster_domain: Some(input.domain.clone()),
        target_cluster_linkerd_namespace: Some(input.namespace.clone()),
        cluster_credentials_secret: Some(names::credentials_secret(&input.name)),
        gateway_address: Some(input.gateway_addresses.join(",")),
        gateway_port: Some(input.gateway_port.to_string()),
        gateway_identity: Some(identity.to_string()),
        probe_spec: Some(ProbeSpec {
            period: Some("1s".to_owned()),
            timeout: Some("1s".to_owned()),
            failure_threshold: Some("3".to_owned()),
            ..ProbeSpec::default()
        }),
        selector: Some(input.selector.clone().unwrap_or_else(exported)),
        excluded_annotations: listed(&input.excluded_annotations),
        excluded_labels: listed(&input.excluded_labels),
        ..LinkSpec::default()
    };
    let mut object = json!(Link::new(&input.name, spec));
    let mut metadata = metadata(&input.namespace, &input.name, &[]);
    metadata["annotations"] = json!({CREATED_BY: format!("linkspan/cli {VERSION}")});
    object["metadata"] = metadata;
    without_nulls(&mut object);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_mirror_could_carry_are_refused() {
        assert_eq!(check_name("cluster-west"), Ok(()));
        assert!(matches!(check_name("west.example"), Err(LinkNameError::Form(_))));
        assert!(matches!(check_name("West"), Err(LinkNameError::Form(_))));
        assert!(matches!(check_name(""), Err(LinkNameError::Form(_))));
        assert!(matches!(check_name(&"a".repeat(60)), Err(LinkNameError::TooLong(_))));
    }

    #[test]
    fn no_token_is_shown_for_debugging() {
        let api = ApiAccess {
            server: "https://a:1".into(),
            ca_data: None,
            tls_server_name: None,
            token: "sesame".into(),
        };
        assert!(!format!("{api:?}").contains("sesame"));
        assert!(kubeconfig("west", &api).contains("token: sesame"));
    }
}
