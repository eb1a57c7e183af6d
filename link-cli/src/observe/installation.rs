//! What stands of an installation: everything `check` and `version` judge.

use crate::{
    cluster::Cluster,
    manifests::{object::Key, rights, system, values::Values},
    observe::{
        exports::{self, Exports},
        gateways::{self, GatewayPod},
        health::{self, Health},
        mirrors::{self, Mirror},
    },
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace, Secret, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use linkspan_core::{
    api::{
        credentials::KUBECONFIG,
        labels::{CONTROLLER, GATEWAY},
        link::Link,
    },
    process::{clock::Clock, clock_skew},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An answer, or the sentence that says why there is none.
pub type Answer<T> = Result<T, String>;

/// Everything that was looked at.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Name of the context, for advice.
    pub context: String,
    /// Namespace of the installation.
    pub namespace: String,
    /// Version of the API server, e.g. `v1.34.1`.
    pub api_version: Answer<String>,
    /// Labels of each of our definitions; none where the definition is missing.
    pub definitions: Answer<BTreeMap<String, Option<Value>>>,
    /// Whether the namespace is there.
    pub namespace_exists: Answer<bool>,
    /// Gateway and controller; none where the Deployment is missing.
    pub workloads: Answer<BTreeMap<&'static str, Option<Workload>>>,
    /// What this machine's clock shows.
    pub now: Timestamp,
    /// The API server's clock minus this machine's; none where it did not tell.
    pub api_skew: Option<SignedDuration>,
    /// The values it was installed with; the defaults where they are not known.
    pub values: Values,
    /// The rules of each role that should be there; none where the role is missing.
    pub roles: Answer<BTreeMap<Key, Option<Value>>>,
    /// The gateway's Service; none where it is missing.
    pub gateway_service: Answer<Option<Service>>,
    /// The published CA bundle (PEM); none where it is not published.
    pub bundle: Answer<Option<String>>,
    /// What is exported.
    pub exports: Answer<Exports>,
    /// The Links.
    pub links: Answer<Vec<Link>>,
    /// How they are, and who says so.
    pub health: Health,
    /// What each gateway pod says; none where the user may not ask them.
    pub gateways: Option<Vec<GatewayPod>>,
    /// Credentials of each link.
    pub credentials: BTreeMap<String, Answer<Credentials>>,
    /// The mirrors.
    pub mirrors: Answer<Vec<Mirror>>,
}

/// One Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Workload {
    /// Pods wanted.
    pub wanted: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Tag of the image.
    pub version: String,
}

/// What the Secret with a link's credentials is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It is there, and holds a kubeconfig.
    Present,
    /// There is no such Secret.
    Missing,
    /// It holds no kubeconfig.
    Unusable,
}

/// Looks at everything. What cannot be read is an answer too.
pub async fn look(cluster: &Cluster, clock: &Clock) -> Installation {
    let (api_version, definitions, namespace_exists, workloads, bundle, links) = tokio::join!(
        api_version(cluster),
        definitions(cluster),
        async {
            Ok(cluster.get(&cluster.all::<Namespace>(), &cluster.namespace, "namespace").await?.is_some())
        },
        workloads(cluster),
        async { Ok(cluster.published_trust().await?.map(|(bundle, _)| bundle)) },
        health::list(cluster),
    );
    let links = told(links);
    let services = cluster.ours::<Service>();
    let values = values(cluster).await;
    let (skew, roles, gateway_service, exports, mirrors, health, gateways) = tokio::join!(
        clock_skew::of_server(&cluster.client, clock),
        roles(cluster, links.as_deref().unwrap_or_default(), &values),
        cluster.get(&services, GATEWAY, "Service"),
        exports::look(cluster),
        mirrors::all(cluster, None, None),
        health::look(cluster),
        gateways::look(cluster),
    );
    let mut found = BTreeMap::new();
    for link in links.iter().flatten() {
        let name = link.metadata.name.clone().unwrap_or_default();
        let answer = credentials(cluster, &link.spec.credentials_secret(&name)).await;
        found.insert(name, told(answer));
    }
    Installation {
        context: cluster.context.clone(),
        namespace: cluster.namespace.clone(),
        now: clock.now(),
        api_version: told(api_version),
        api_skew: skew.ok().flatten(),
        definitions: told(definitions),
        namespace_exists: told(namespace_exists),
        workloads: told(workloads),
        values,
        roles: told(roles),
        gateway_service: told(gateway_service),
        bundle: told(bundle),
        exports: told(exports),
        links,
        health: health.unwrap_or_default(),
        gateways,
        credentials: found,
        mirrors: told(mirrors),
    }
}

/// The values of the installation, as far as they are known.
async fn values(cluster: &Cluster) -> Values {
    let map = cluster.get(&cluster.ours::<ConfigMap>(), system::VALUES_CONFIG_MAP, "ConfigMap").await;
    let text = map.ok().flatten().and_then(|map| map.data?.remove(system::VALUES_KEY));
    let kept = text.and_then(|text| serde_json::from_str(&text).ok());
    Values::from_layers(kept.into_iter().collect(), &[]).unwrap_or_default()
}

/// Every role that this version needs here, with the rules that it has; none where it is missing.
async fn roles(
    cluster: &Cluster,
    links: &[Link],
    values: &Values,
) -> anyhow::Result<BTreeMap<Key, Option<Value>>> {
    let mut found = BTreeMap::new();
    for wanted in wanted_roles(&cluster.namespace, links, values) {
        let key = Key::of(&wanted);
        let role = cluster.find(&key).await?;
        found.insert(key, role.map(|role| role.data["rules"].clone()));
    }
    Ok(found)
}

/// The roles that this version needs in a cluster with these links.
pub fn wanted_roles(namespace: &str, links: &[Link], values: &Values) -> Vec<Value> {
    let mut all = rights::gateway(namespace, values);
    all.extend(rights::controller(namespace, values));
    all.push(rights::remote_access_role());
    for link in links {
        all.extend(rights::link_reader(namespace, link.metadata.name.as_deref().unwrap_or_default()));
    }
    all.retain(|object| object["rules"].is_array());
    all
}

/// An error becomes its sentence.
pub fn told<T>(answer: anyhow::Result<T>) -> Answer<T> {
    answer.map_err(|e| format!("{e:#}"))
}

/// Version of the API server.
///
/// # Errors
/// When it does not answer.
pub async fn api_version(cluster: &Cluster) -> anyhow::Result<String> {
    let version = cluster.client.apiserver_version().await;
    version.map(|v| v.git_version).map_err(|e| cluster.explain("asking for the version", &e))
}

/// Labels of each of our definitions; none where the definition is missing.
///
/// # Errors
/// When definitions cannot be read.
pub async fn definitions(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Option<Value>>> {
    let api = cluster.all::<CustomResourceDefinition>();
    let mut found = BTreeMap::new();
    for definition in system::definitions() {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let there = cluster.get(&api, &name, "CustomResourceDefinition").await?;
        found.insert(name, there.map(|crd| json!(crd.metadata.labels)));
    }
    Ok(found)
}

/// Gateway and controller, as their Deployments say.
///
/// # Errors
/// When the Deployments cannot be read.
pub async fn workloads(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, Option<Workload>>> {
    let mut found = BTreeMap::new();
    for name in [GATEWAY, CONTROLLER] {
        let deployment = cluster.get(&cluster.ours::<Deployment>(), name, "Deployment").await?;
        found.insert(name, deployment.as_ref().map(workload));
    }
    Ok(found)
}

/// What a Deployment says of its pods.
pub fn workload(deployment: &Deployment) -> Workload {
    let spec = deployment.spec.as_ref();
    let image = spec
        .and_then(|spec| spec.template.spec.as_ref())
        .and_then(|pod| pod.containers.first())
        .and_then(|container| container.image.as_deref())
        .unwrap_or_default();
    Workload {
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default(),
        version: image.rsplit_once(':').map_or("", |(_, tag)| tag).to_owned(),
    }
}

async fn credentials(cluster: &Cluster, name: &str) -> anyhow::Result<Credentials> {
    let secret = cluster.get(&cluster.ours::<Secret>(), name, "Secret").await?;
    Ok(match secret.map(|secret| secret.data.unwrap_or_default()) {
        None => Credentials::Missing,
        Some(data) => match data.get(KUBECONFIG).map(|text| serde_norway::from_slice::<Value>(&text.0)) {
            Some(Ok(kubeconfig)) if kubeconfig["clusters"][0]["cluster"]["server"].is_string() => {
                Credentials::Present
            }
            _ => Credentials::Unusable,
        },
    })
}
