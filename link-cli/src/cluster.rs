//! A cluster and its API server: connecting, reading, applying, deleting; errors in words a person can use.

use crate::{
    cli::Global,
    manifests::object::{Key, Object},
};
use anyhow::{anyhow, bail};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Namespace},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy},
    config::Kubeconfig,
    core::GroupVersionKind,
};
use linkspan_core::{
    api::credentials::{CA_BUNDLE, CA_BUNDLE_CONFIG_MAP, TRUST_DOMAIN},
    process::kube_client::{self, with_causes},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{fmt::Debug, time::Duration};

/// Field manager of what this tool applies itself.
pub const FIELD_MANAGER: &str = "link-cli";

/// One cluster, reached through a context of the kubeconfig.
pub struct Cluster {
    /// Its API.
    pub client: Client,
    /// Name of the context, for messages.
    pub context: String,
    /// Namespace of the installation.
    pub namespace: String,
    /// Longest time until an answer begins; none for no limit.
    pub answers_within: Option<Duration>,
    server: String,
}

impl Cluster {
    /// The cluster that the global flags name, or that of another context.
    ///
    /// # Errors
    /// When the kubeconfig has no such context or cannot be used.
    pub async fn connect(global: &Global, context: Option<&str>) -> anyhow::Result<Self> {
        if global.impersonate.is_none() && !global.impersonate_groups.is_empty() {
            bail!("--as-group is given without --as: a group is acted as only together with a user");
        }
        let options = global.connect_options(context);
        let config = kube_client::config_of_user(&options).await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let context = match options.context {
            Some(name) => name,
            None => kubeconfig(global)?.current_context.unwrap_or_else(|| "current".to_owned()),
        };
        let answers_within = options.request_timeout;
        let client = kube_client::client_within(config, answers_within)?;
        Ok(Self { client, context, namespace: global.linkspan_namespace.clone(), answers_within, server })
    }

    /// Objects of one type in the installation's namespace.
    pub fn ours<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of one type in the whole cluster.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// One object, or none where it, or even its type, does not exist.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn get<K>(&self, api: &Api<K>, name: &str, what: &str) -> anyhow::Result<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match api.get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(self.explain(&format!("reading {what} {name}"), &e)),
        }
    }

    /// All objects that `params` selects; none where their type does not exist.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn list<K>(&self, api: &Api<K>, params: &ListParams, what: &str) -> anyhow::Result<Vec<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match api.list(params).await {
            Ok(list) => Ok(list.items),
            Err(e) if is_not_found(&e) => Ok(vec![]),
            Err(e) => Err(self.explain(&format!("listing {what}"), &e)),
        }
    }

    /// Uid of the cluster: that of its namespace `kube-system`.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn uid(&self) -> anyhow::Result<String> {
        let found = self.get(&self.all::<Namespace>(), "kube-system", "namespace").await?;
        found
            .and_then(|namespace| namespace.metadata.uid)
            .ok_or_else(|| anyhow!("the cluster of context {} has no namespace kube-system", self.context))
    }

    /// The published CA bundle and trust domain, where the controller has published them.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn published_trust(&self) -> anyhow::Result<Option<(String, String)>> {
        let found = self.get(&self.ours::<ConfigMap>(), CA_BUNDLE_CONFIG_MAP, "ConfigMap").await?;
        let Some(mut data) = found.and_then(|map| map.data) else { return Ok(None) };
        let both = data.remove(CA_BUNDLE).zip(data.remove(TRUST_DOMAIN));
        Ok(both.filter(|(bundle, domain)| !bundle.trim().is_empty() && !domain.trim().is_empty()))
    }

    /// All objects of a kind, as they are; none where the kind is not known here. An empty namespace stands for all.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn list_any(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        labels: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let api = self.dynamic(&Key::new(api_version, kind, namespace, ""));
        let found = self.list(&api, &ListParams::default().labels(labels), kind).await?;
        let typed = |object: DynamicObject| {
            let mut value = serde_json::to_value(object)?;
            value["apiVersion"] = Value::String(api_version.to_owned());
            value["kind"] = Value::String(kind.to_owned());
            Ok(value)
        };
        found.into_iter().map(typed).collect()
    }

    /// Applies `object` by server-side apply; with `dry_run` the server only says what would come of it.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn apply(&self, object: &Object, dry_run: bool) -> anyhow::Result<()> {
        let key = Key::of(object);
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.dry_run = dry_run;
        let patched = self.dynamic(&key).patch(&key.name, &params, &Patch::Apply(object)).await;
        patched.map(|_| ()).map_err(|e| self.explain(&format!("applying {key}"), &e))
    }

    /// The object, with whatever fields it has.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn find(&self, key: &Key) -> anyhow::Result<Option<DynamicObject>> {
        self.get(&self.dynamic(key), &key.name, &key.kind).await
    }

    /// Changes a Service; with `dry_run` the server only says whether it would.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn patch_service(&self, key: &Key, patch: &Patch<Value>, dry_run: bool) -> anyhow::Result<()> {
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let patched = self.dynamic(key).patch(&key.name, &params, patch).await;
        patched.map(|_| ()).map_err(|e| self.explain(&format!("changing {key}"), &e))
    }

    /// Namespace of the user's Services: `-n`, else that of the context.
    pub fn namespace_of_user(&self, global: &Global) -> String {
        global.namespace.clone().unwrap_or_else(|| self.client.default_namespace().to_owned())
    }

    /// Deletes the object; one that is gone already is no error. Returns whether it was there.
    ///
    /// # Errors
    /// When the API server cannot be asked, or refuses.
    pub async fn delete(&self, key: &Key) -> anyhow::Result<bool> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.dynamic(key).delete(&key.name, &params).await {
            Ok(_) => Ok(true),
            Err(e) if is_not_found(&e) => Ok(false),
            Err(e) => Err(self.explain(&format!("deleting {key}"), &e)),
        }
    }

    fn dynamic(&self, key: &Key) -> Api<DynamicObject> {
        let (group, version) = key.api_version.rsplit_once('/').unwrap_or(("", &key.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &key.kind));
        if key.namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource)
        }
    }

    /// An error of the API client as one sentence: what was tried, why it failed, what mends it.
    pub fn explain(&self, doing: &str, error: &kube::Error) -> anyhow::Error {
        sentence(&self.context, &self.server, doing, error)
    }
}

fn sentence(context: &str, server: &str, doing: &str, error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 401 => {
            anyhow!(
                "{doing}: the credentials of context {context} are not accepted by {server}; sign in again"
            )
        }
        kube::Error::Api(status) if status.code == 403 => anyhow!(
            "{doing}: not allowed for the user of context {context} ({}); ask for this right, or use --context or --as",
            status.message
        ),
        kube::Error::Api(status) => anyhow!("{doing} in context {context}: {}", status.message),
        kube::Error::Service(_) | kube::Error::HyperError(_) => anyhow!(
            "{doing}: the API server of context {context} at {server} does not answer ({}); check that the cluster runs and that the address in the kubeconfig is right",
            root_cause(error)
        ),
        other => anyhow!("{doing} in context {context}: {}", with_causes(other)),
    }
}

/// Whether an API error says that there is no such object, or no such type of object.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The kubeconfig that the flags name.
///
/// # Errors
/// When it cannot be read.
pub fn kubeconfig(global: &Global) -> anyhow::Result<Kubeconfig> {
    let read = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    read.map_err(|e| {
        anyhow!("kubeconfig cannot be used: {}; check --kubeconfig and $KUBECONFIG", with_causes(&e))
    })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn told(code: u16, message: &str) -> String {
        let status = Status { code, message: message.into(), ..Status::default() };
        sentence("east", "https://a:1", "listing Links", &kube::Error::Api(Box::new(status))).to_string()
    }

    #[test]
    fn errors_name_the_thing_the_cause_and_the_mend() {
        assert_eq!(
            told(403, "links is forbidden"),
            "listing Links: not allowed for the user of context east (links is forbidden); ask for this right, or use --context or --as"
        );
        assert!(told(401, "Unauthorized").contains("sign in again"));
        assert_eq!(told(409, "it was changed"), "listing Links in context east: it was changed");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = format!("http://127.0.0.1:{port}");
        let client = kube_client::client(kube::Config::new(server.parse().unwrap())).unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        let text = sentence("east", &server, "asking for the version", &error).to_string();
        assert!(text.contains(&server) && text.contains("refused") && text.contains("check that"), "{text}");
    }
}
