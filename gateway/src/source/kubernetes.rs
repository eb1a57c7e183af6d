//! Fills the tables from the Kubernetes API of this cluster, with read-only rights.

use crate::{
    mtls::credentials::{Credentials, Texts},
    source::{Tables, rows},
};
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use linkspan_core::{
    api::{
        credentials::{GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP},
        labels::{EXPORTED, LINK_ACCOUNT, MANAGED_BY, SLICE_MANAGED_BY, SPLIT},
        link::Link,
        pod::Pod,
        slice::SliceError,
    },
    process::readiness::{Handle, Readiness},
};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeSet,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::JoinSet;

/// What happened to objects of one kind.
enum Change<K> {
    Apply(K),
    Delete(K),
    /// These are all: what was missed is put right.
    Reset(Vec<K>),
}

/// Starts all watches.
pub fn start(
    client: &Client,
    namespace: &str,
    tables: &Tables,
    readiness: &Readiness,
    tasks: &mut JoinSet<()>,
) {
    let all = Config::default;
    let wait = |name| readiness.register(name, "waiting for the first complete list");
    let t = tables.clone();
    tasks.spawn(follow(
        Api::<Service>::all(client.clone()),
        all().labels(&format!("{EXPORTED}=true")),
        wait("services"),
        move |change| services(&t, change),
    ));
    let t = tables.clone();
    tasks.spawn(follow(
        Api::<EndpointSlice>::all(client.clone()),
        all().labels(&format!("{SLICE_MANAGED_BY}!={MANAGED_BY}")),
        wait("endpointslices"),
        move |change| endpoint_slices(&t, change),
    ));
    let t = tables.clone();
    tasks.spawn(follow(
        Api::<EndpointSlice>::all(client.clone()),
        all().labels(&format!("{SLICE_MANAGED_BY}={MANAGED_BY}")),
        wait("mirrors' endpointslices"),
        move |change| our_slices(&t, change),
    ));
    let t = tables.clone();
    let alive = "status.phase!=Succeeded,status.phase!=Failed";
    tasks.spawn(follow(Api::<Pod>::all(client.clone()), all().fields(alive), wait("pods"), move |change| {
        pods(&t, change);
    }));
    let t = tables.clone();
    tasks.spawn(follow(
        Api::<Link>::namespaced(client.clone(), namespace),
        all(),
        wait("links"),
        move |change| {
            links(&t, change);
        },
    ));
    let t = tables.clone();
    tasks.spawn(follow(
        Api::<ServiceAccount>::namespaced(client.clone(), namespace),
        all().labels(&format!("{LINK_ACCOUNT}=true")),
        wait("serviceaccounts"),
        move |change| accounts(&t, change),
    ));
    start_credentials(client, namespace, tables, readiness, tasks);
}

/// Follows both objects. One that is deleted revokes nothing and lets nobody in: what was read last holds until the
/// controller has written it anew.
fn start_credentials(
    client: &Client,
    namespace: &str,
    tables: &Tables,
    readiness: &Readiness,
    tasks: &mut JoinSet<()>,
) {
    let missing =
        format!("Secret {GATEWAY_TLS_SECRET} and ConfigMap {GATEWAY_TRUST_CONFIG_MAP} are not there yet");
    let state = Arc::new(Mutex::new((Texts::default(), readiness.register("tls", &missing))));
    let publish = |tables: Tables, state: Arc<Mutex<(Texts, Handle)>>| {
        move |put: &mut dyn FnMut(&mut Texts)| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            put(&mut state.0);
            publish(&tables, &state.0, &state.1);
        }
    };
    let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
    let change = publish(tables.clone(), state.clone());
    tasks.spawn(follow(
        Api::<Secret>::namespaced(client.clone(), namespace),
        named(GATEWAY_TLS_SECRET),
        readiness.register("secret", "waiting for the first answer"),
        move |event| {
            let data = newest(event).map(|secret| {
                secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
            });
            if data.is_some() {
                change(&mut |texts| texts.secret.clone_from(&data));
            }
        },
    ));
    let change = publish(tables.clone(), state);
    tasks.spawn(follow(
        Api::<ConfigMap>::namespaced(client.clone(), namespace),
        named(GATEWAY_TRUST_CONFIG_MAP),
        readiness.register("configmap", "waiting for the first answer"),
        move |event| {
            let data = newest(event).map(|map| map.data.unwrap_or_default());
            if data.is_some() {
                change(&mut |texts| texts.trust.clone_from(&data));
            }
        },
    ));
}

/// Lets only Services in namespaces that the label selector `gate` selects be called from outside; the API server
/// itself applies it. Until they are listed, none may.
pub fn start_gate(
    client: &Client,
    gate: &str,
    tables: &Tables,
    readiness: &Readiness,
    tasks: &mut JoinSet<()>,
) {
    tables.update_exports(|table| table.reset_gate(BTreeSet::new()));
    let tables = tables.clone();
    tasks.spawn(follow(
        Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
        Config::default().labels(gate),
        readiness.register("namespaces", "waiting for the first list of namespaces that may export"),
        move |change| {
            tables.update_exports(|table| match change {
                Change::Apply(namespace) => table.set_gate(&namespace.name_any(), true),
                Change::Delete(namespace) => table.set_gate(&namespace.name_any(), false),
                Change::Reset(all) => table.reset_gate(all.iter().map(ResourceExt::name_any).collect()),
            });
        },
    ));
}

/// Publishes what `texts` hold. A server certificate that was there once is kept while the new one cannot be read.
fn publish(tables: &Tables, texts: &Texts, ready: &Handle) {
    let mut read = Credentials::read(texts);
    for problem in &read.problems {
        tracing::warn!(problem, "key material is not complete");
    }
    if read.server.is_none() {
        read.server.clone_from(&tables.credentials.borrow().server);
    }
    match &read.server {
        Some(server) => {
            tracing::info!(identity = %server.identity, links = read.clients.len(), "key material read");
            ready.ready();
        }
        None => ready.pending(&read.problems.join("; ")),
    }
    tables.credentials.send_replace(Arc::new(read));
}

/// The one object that a watch by name can tell of.
fn newest<K>(change: Change<K>) -> Option<K> {
    match change {
        Change::Apply(object) => Some(object),
        Change::Delete(_) => None,
        Change::Reset(mut objects) => objects.pop(),
    }
}

/// Hands every change to `on`, for ever; after each interruption everything is handed over anew.
async fn follow<K>(api: Api<K>, config: Config, ready: Handle, mut on: impl FnMut(Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let (mut listing, mut listed) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => on(Change::Apply(object)),
            Ok(Event::Delete(object)) => on(Change::Delete(object)),
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => listing.push(object),
            Ok(Event::InitDone) => {
                on(Change::Reset(std::mem::take(&mut listing)));
                ready.ready();
                listed = true;
            }
            Err(error) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, %error, "watch interrupted; trying again");
                if !listed {
                    ready.pending(&format!("cannot be listed: {error}"));
                }
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn services(tables: &Tables, change: Change<Service>) {
    tables.update_exports(|table| match change {
        Change::Apply(object) => {
            let (namespace, name) = key(&object);
            table.set_service(&namespace, &name, rows::service(&object))
        }
        Change::Delete(object) => {
            let (namespace, name) = key(&object);
            table.set_service(&namespace, &name, None)
        }
        Change::Reset(objects) => {
            table.reset_services(objects.iter().filter_map(|o| Some((key(o), rows::service(o)?))).collect())
        }
    });
}

fn endpoint_slices(tables: &Tables, change: Change<EndpointSlice>) {
    tables.services.update(|table| {
        match change {
            Change::Apply(object) => {
                let (namespace, name) = key(&object);
                table.set_slice(&namespace, &name, rows::endpoint_slice(&object));
            }
            Change::Delete(object) => {
                let (namespace, name) = key(&object);
                table.set_slice(&namespace, &name, None);
            }
            Change::Reset(objects) => {
                table.reset_slices(objects.iter().filter_map(|o| Some((key(o), rows::endpoint_slice(o)?))));
            }
        }
        true
    });
}

fn our_slices(tables: &Tables, change: Change<EndpointSlice>) {
    let read = |object: &EndpointSlice| match rows::our_slice(object) {
        // An apex's own pods, for when no gateway is ready: they lead to nowhere from here.
        Err(SliceError::Missing(_)) if object.labels().contains_key(SPLIT) => None,
        Ok(row) => Some(row),
        Err(error) => {
            let (namespace, name) = key(object);
            tracing::warn!(namespace, name, %error, "a mirror's slice cannot be used");
            None
        }
    };
    tables.ports.update(|table| match change {
        Change::Apply(object) => {
            let (namespace, name) = key(&object);
            table.set(&namespace, &name, read(&object))
        }
        Change::Delete(object) => {
            let (namespace, name) = key(&object);
            table.set(&namespace, &name, None)
        }
        Change::Reset(objects) => {
            table.reset(objects.iter().filter_map(|o| Some((key(o), read(o)?))).collect())
        }
    });
}

fn pods(tables: &Tables, change: Change<Pod>) {
    tables.pods.update(|table| {
        match change {
            Change::Apply(object) => {
                let (namespace, name) = key(&object);
                table.set(&namespace, &name, rows::pod(&object));
            }
            Change::Delete(object) => {
                let (namespace, name) = key(&object);
                table.set(&namespace, &name, None);
            }
            Change::Reset(objects) => {
                table.reset(objects.iter().filter_map(|o| Some((key(o), rows::pod(o)?))));
            }
        }
        true
    });
}

fn links(tables: &Tables, change: Change<Link>) {
    tables.links.update(|table| match change {
        Change::Apply(object) => table.set(&object.name_any(), rows::link(&object)),
        Change::Delete(object) => table.remove(&object.name_any()),
        Change::Reset(objects) => {
            table.reset(objects.iter().map(|o| (o.name_any(), rows::link(o))).collect())
        }
    });
}

fn accounts(tables: &Tables, change: Change<ServiceAccount>) {
    let uid = |object: &ServiceAccount| object.uid().unwrap_or_default();
    tables.accounts.update(|table| match change {
        // An account that is being deleted is gone for us.
        Change::Apply(object) if object.meta().deletion_timestamp.is_some() => {
            table.remove(&object.name_any())
        }
        Change::Apply(object) => table.set(&object.name_any(), &uid(&object)),
        Change::Delete(object) => table.remove(&object.name_any()),
        Change::Reset(objects) => {
            let alive = objects.iter().filter(|o| o.meta().deletion_timestamp.is_none());
            table.reset(alive.map(|o| (o.name_any(), uid(o))).collect())
        }
    });
}
