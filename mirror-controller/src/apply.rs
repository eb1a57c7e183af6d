//! The only writer of mirrors, slices and published exports.
//!
//! Guarantees: nothing is written while this replica does not lead (checked at each write); an update or deletion hits
//! exactly the state that was seen (resource version, uid), so somebody else's change in between is never lost.

use crate::{
    diff::{Change, Seen},
    metrics::Writes,
    snapshot::{Key, standing::State},
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::{Endpoint, EndpointSlice},
    events::v1::Event,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PostParams, Preconditions},
};
use linkspan_core::{
    api::{exported_service::ExportedService, labels::FIELD_MANAGER},
    process::kube_client::{as_manager, with_causes},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// Longest a write may take; with the leader's own limit it ends before another replica may lead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// What stands after a write.
#[derive(Clone, Debug)]
pub enum Written {
    /// The namespace of this name.
    Namespace(String),
    /// This Service.
    Service(Box<Service>),
    /// This slice.
    Slice(Box<EndpointSlice>),
    /// This published export.
    Export(Box<ExportedService>),
    /// Nothing: the Service of this name was deleted.
    ServiceGone(Seen),
    /// Nothing: the slice of this name was deleted.
    SliceGone(Seen),
    /// Nothing: the published export of this name was deleted.
    ExportGone(Seen),
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another replica leads.
    #[error("this replica does not lead")]
    NotLeader,
    /// Something of that name exists that was not known.
    #[error("{0} exists already")]
    Exists(Key),
    /// The object changed or went since it was seen.
    #[error("{0} changed since it was read")]
    Stale(Key),
    /// The controller lacks the right.
    #[error("{0} may not be written: {1}; apply what `link-cli install` prints again: it grants the right")]
    Forbidden(Key, String),
    /// The API server refused it or did not answer.
    #[error("{0} cannot be written: {1}")]
    Failed(Key, String),
}

/// The writer.
#[derive(Clone)]
pub struct Apply {
    client: Client,
    leader: watch::Receiver<bool>,
    writes: Arc<Writes>,
}

impl Apply {
    /// Writes through `client` while `leader` holds `true`, counted in `writes`.
    pub fn new(client: Client, leader: watch::Receiver<bool>, writes: Arc<Writes>) -> Self {
        Self { client, leader, writes }
    }

    /// Carries out one change.
    ///
    /// # Errors
    /// Why it did not happen; nothing is retried here.
    pub async fn write(&self, change: Change) -> Result<Written, WriteError> {
        match change {
            Change::CreateNamespace(o) => self.create_namespace(*o).await,
            Change::PlaceEndpoints(seen, endpoints) => {
                self.place(seen, endpoints).await.map(|o| Written::Slice(Box::new(o)))
            }
            Change::CreateService(o) => self.create(*o).await.map(|o| Written::Service(Box::new(o))),
            Change::UpdateService(o) => self.update(*o).await.map(|o| Written::Service(Box::new(o))),
            Change::DeleteService(seen) => self.delete::<Service>(seen).await.map(Written::ServiceGone),
            Change::CreateSlice(o) => self.create(*o).await.map(|o| Written::Slice(Box::new(o))),
            Change::UpdateSlice(o) => self.update(*o).await.map(|o| Written::Slice(Box::new(o))),
            Change::DeleteSlice(seen) => self.delete::<EndpointSlice>(seen).await.map(Written::SliceGone),
            Change::CreateExport(o) => self.create(*o).await.map(|o| Written::Export(Box::new(o))),
            Change::UpdateExport(o) => self.update(*o).await.map(|o| Written::Export(Box::new(o))),
            Change::DeleteExport(seen) => self.delete::<ExportedService>(seen).await.map(Written::ExportGone),
        }
    }

    /// Makes an Event, if there is none of its name.
    ///
    /// # Errors
    /// As [`Apply::write`].
    pub async fn tell(&self, event: Event) -> Result<(), WriteError> {
        match self.create(event).await {
            Ok(_) | Err(WriteError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the Service `key` afresh.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn service(&self, key: &Key) -> Result<Option<Service>, WriteError> {
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        answer(key, timeout(WRITE_TIMEOUT, api.get_opt(&key.name)).await)
    }

    async fn create_namespace(&self, namespace: Namespace) -> Result<Written, WriteError> {
        let name = namespace.name_any();
        let key = Key::new("", &name);
        self.count("create", "Namespace")?;
        let api = Api::<Namespace>::all(self.client.clone());
        let made = answer(&key, timeout(WRITE_TIMEOUT, api.create(&post(), &namespace)).await);
        made.map(|_| Written::Namespace(name))
    }

    /// Replaces the endpoints of the slice, if it is still as it was seen: of the rest only a print is known here.
    async fn place(&self, seen: Seen, endpoints: Vec<Endpoint>) -> Result<EndpointSlice, WriteError> {
        let api = self.api::<EndpointSlice>(&seen.key, "patch")?;
        let State { uid, version } = &seen.state;
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": version}, "endpoints": endpoints});
        let (manager, patch) = (as_manager(), Patch::Merge(patch));
        let patched = api.patch(&seen.key.name, &manager, &patch);
        answer(&seen.key, timeout(WRITE_TIMEOUT, patched).await)
    }

    async fn create<K: Object>(&self, object: K) -> Result<K, WriteError> {
        let key = Key::of(&object);
        let api = self.api::<K>(&key, "create")?;
        answer(&key, timeout(WRITE_TIMEOUT, api.create(&post(), &object)).await)
    }

    async fn update<K: Object>(&self, object: K) -> Result<K, WriteError> {
        let key = Key::of(&object);
        let api = self.api::<K>(&key, "update")?;
        answer(&key, timeout(WRITE_TIMEOUT, api.replace(&key.name, &post(), &object)).await)
    }

    async fn delete<K: Object>(&self, seen: Seen) -> Result<Seen, WriteError> {
        let api = self.api::<K>(&seen.key, "delete")?;
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let preconditions =
            Preconditions { uid: text(&seen.state.uid), resource_version: text(&seen.state.version) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match timeout(WRITE_TIMEOUT, api.delete(&seen.key.name, &params)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(seen),
            other => answer(&seen.key, other).map(|_| seen),
        }
    }

    /// The last gate before a write.
    fn api<K: Object>(&self, key: &Key, verb: &'static str) -> Result<Api<K>, WriteError> {
        self.count(verb, &K::kind(&()))?;
        Ok(Api::namespaced(self.client.clone(), &key.namespace))
    }

    fn count(&self, verb: &'static str, kind: &str) -> Result<(), WriteError> {
        if !*self.leader.borrow() {
            return Err(WriteError::NotLeader);
        }
        self.writes.count(verb, kind);
        Ok(())
    }
}

/// What can be written.
trait Object:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + ResourceExt
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}
impl Object for Service {}
impl Object for EndpointSlice {}
impl Object for ExportedService {}
impl Object for Event {}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn answer<T>(
    key: &Key,
    result: Result<kube::Result<T>, tokio::time::error::Elapsed>,
) -> Result<T, WriteError> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {
            Err(WriteError::Exists(key.clone()))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(WriteError::Stale(key.clone())),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(WriteError::Stale(key.clone())),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Err(WriteError::Forbidden(key.clone(), status.message.clone()))
        }
        Ok(Err(kube::Error::Api(status))) => Err(WriteError::Failed(key.clone(), status.message.clone())),
        Ok(Err(error)) => Err(WriteError::Failed(key.clone(), with_causes(&error))),
        Err(_) => Err(WriteError::Failed(
            key.clone(),
            format!("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs()),
        )),
    }
}
