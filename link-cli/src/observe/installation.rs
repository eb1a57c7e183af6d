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
use futures::{StreamExt, TryStreamExt, stream};
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
use tokio::time::{Instant, timeout_at};

/// How many questions of one kind are asked at the same time.
const AT_ONCE: usize = 16;

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

/// Looks at everything, within twice the time that one answer may take. What cannot be read is an answer too. Where the
/// API does not answer at all, nothing else is asked.
pub async fn look(cluster: &Cluster, clock: &Clock) -> Installation {
    let (api_version, skew) =
        tokio::join!(api_version(cluster), clock_skew::of_server(&cluster.client, clock));
    let end = cluster.answers_within.map(|limit| Instant::now() + limit);
    let mut seen = Installation {
        context: cluster.context.clone(),
        namespace: cluster.namespace.clone(),
        now: clock.now(),
        api_skew: skew.ok().flatten(),
        ..Installation::unanswered(told(api_version))
    };
    if seen.api_version.is_err() {
        return seen;
    }
    let of_links = async {
        let (links, values) = tokio::join!(by(end, health::list(cluster)), values(cluster));
        let names = links.as_deref().unwrap_or_default();
        let (roles, credentials) =
            tokio::join!(by(end, roles(cluster, names, &values)), all_credentials(cluster, names, end));
        (links, values, roles, credentials)
    };
    let services = cluster.ours::<Service>();
    let namespaces = cluster.all::<Namespace>();
    (
        (seen.links, seen.values, seen.roles, seen.credentials),
        seen.definitions,
        seen.namespace_exists,
        seen.workloads,
        seen.bundle,
        seen.gateway_service,
        seen.exports,
        seen.mirrors,
        seen.health,
        seen.gateways,
    ) = tokio::join!(
        of_links,
        by(end, definitions(cluster)),
        by(end, async { Ok(cluster.get(&namespaces, &cluster.namespace, "namespace").await?.is_some()) }),
        by(end, workloads(cluster)),
        by(end, async { Ok(cluster.published_trust().await?.map(|(bundle, _)| bundle)) }),
        by(end, cluster.get(&services, GATEWAY, "Service")),
        by(end, exports::look(cluster)),
        by(end, mirrors::all(cluster, None, None)),
        async { by(end, health::look(cluster)).await.unwrap_or_default() },
        async { by(end, async { Ok(gateways::look(cluster).await) }).await.unwrap_or_default() },
    );
    seen
}

impl Installation {
    /// What is known of an installation before anything but the API's version was asked for.
    fn unanswered(api_version: Answer<String>) -> Self {
        fn nothing<T>() -> Answer<T> {
            Err("not asked for".to_owned())
        }
        Self {
            context: String::new(),
            namespace: String::new(),
            api_version,
            definitions: nothing(),
            namespace_exists: nothing(),
            workloads: nothing(),
            now: Timestamp::UNIX_EPOCH,
            api_skew: None,
            values: Values::default(),
            roles: nothing(),
            gateway_service: nothing(),
            bundle: nothing(),
            exports: nothing(),
            links: nothing(),
            health: Health::default(),
            gateways: None,
            credentials: BTreeMap::new(),
            mirrors: nothing(),
        }
    }
}

/// The answer to one question, or, where there is an end to waiting, that it was not given by then.
async fn by<T>(end: Option<Instant>, question: impl Future<Output = anyhow::Result<T>>) -> Answer<T> {
    match end {
        None => told(question.await),
        Some(end) => match timeout_at(end, question).await {
            Ok(answer) => told(answer),
            Err(_) => Err("the API server did not answer in time; see --request-timeout".to_owned()),
        },
    }
}

async fn all_credentials(
    cluster: &Cluster,
    links: &[Link],
    end: Option<Instant>,
) -> BTreeMap<String, Answer<Credentials>> {
    let one = async |link: &Link| {
        let name = link.metadata.name.clone().unwrap_or_default();
        let answer = by(end, credentials(cluster, &link.spec.credentials_secret(&name))).await;
        (name, answer)
    };
    stream::iter(links.iter().map(one)).buffer_unordered(AT_ONCE).collect().await
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
    let wanted = wanted_roles(&cluster.namespace, links, values);
    let one = async |wanted: &Value| {
        let key = Key::of(wanted);
        let role = cluster.find(&key).await?;
        Ok((key, role.map(|role| role.data["rules"].clone())))
    };
    stream::iter(wanted.iter().map(one)).buffer_unordered(AT_ONCE).try_collect().await
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
    let wanted = system::definitions();
    let one = async |definition: &Value| {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let there = cluster.get(&api, &name, "CustomResourceDefinition").await?;
        Ok((name, there.map(|crd| json!(crd.metadata.labels))))
    };
    stream::iter(wanted.iter().map(one)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Gateway and controller, as their Deployments say.
///
/// # Errors
/// When the Deployments cannot be read.
pub async fn workloads(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, Option<Workload>>> {
    let api = cluster.ours::<Deployment>();
    let (gateway, controller) = tokio::try_join!(
        cluster.get(&api, GATEWAY, "Deployment"),
        cluster.get(&api, CONTROLLER, "Deployment")
    )?;
    let both = [(GATEWAY, gateway), (CONTROLLER, controller)];
    Ok(both.into_iter().map(|(name, found)| (name, found.as_ref().map(workload))).collect())
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
