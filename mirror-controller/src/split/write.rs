//! Writes what `step` says, while this replica leads. Nothing is retried here.

use crate::{
    apply::{Apply, WriteError},
    snapshot::Key,
    split::{
        managed_fields::hand_back,
        step::Step,
        table::{has_key, is_labelled, user_selector},
    },
};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, api::Patch};
use linkspan_core::{
    api::labels::SPLIT,
    process::{
        kube_client::{as_manager, with_causes},
        split_undo::{operations, release_patch},
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::watch, time::timeout};

const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// The writer of apexes; Services and slices of ours go through [`Apply`].
#[derive(Clone)]
pub struct Writer {
    /// This cluster's API.
    pub client: Client,
    /// Writes what is ours.
    pub apply: Apply,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
}

impl Writer {
    /// Carries out one step at `apex`, whose selector was `selector` when it was decided.
    ///
    /// # Errors
    /// Why it did not happen.
    pub async fn write(
        &self,
        apex: &Key,
        selector: &BTreeMap<String, String>,
        step: Step,
    ) -> Result<(), WriteError> {
        match step {
            Step::Change(change) => self.apply.write(change).await.map(drop),
            Step::Take | Step::Release | Step::Unlabel => self.patch_apex(apex, selector, &step).await,
        }
    }

    async fn patch_apex(
        &self,
        key: &Key,
        selector: &BTreeMap<String, String>,
        step: &Step,
    ) -> Result<(), WriteError> {
        if !*self.leader.borrow() {
            return Err(WriteError::NotLeader);
        }
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        let Some(now) = call(key, api.get_opt(&key.name)).await? else { return Ok(()) };
        if user_selector(&now) != *selector {
            return Err(WriteError::Stale(key.clone()));
        }
        let patch = match step {
            Step::Take => take_patch(&now),
            Step::Release => release_patch(&now),
            _ => unlabel_patch(&now),
        };
        let Some(patch) = patch else { return Ok(()) };
        let after = call(key, api.patch(&key.name, &as_manager(), &patch)).await?;
        let before = now.metadata.managed_fields.unwrap_or_default();
        let known = after.metadata.managed_fields.clone().unwrap_or_default();
        let wanted = hand_back(&before, &known);
        if wanted == known {
            return Ok(());
        }
        let patch = operations(&json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": after.metadata.resource_version},
            {"op": "replace", "path": "/metadata/managedFields", "value": wanted},
        ]));
        let Some(patch) = patch else { return Ok(()) };
        // Who was quicker has changed more than this matters.
        match call(key, api.patch(&key.name, &as_manager(), &patch)).await {
            Err(WriteError::Stale(_)) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Our key and label, onto the apex in exactly the state that was seen.
fn take_patch(apex: &Service) -> Option<Patch<()>> {
    let selector = apex.spec.as_ref()?.selector.as_ref()?;
    let mut list = vec![
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": apex.metadata.resource_version}),
        json!({"op": "test", "path": "/spec/selector", "value": selector}),
    ];
    if !has_key(apex) {
        list.push(json!({"op": "add", "path": "/spec/selector/linkspan.dev~1split", "value": "true"}));
    }
    if apex.metadata.labels.is_none() {
        list.push(json!({"op": "add", "path": "/metadata/labels", "value": {SPLIT: "true"}}));
    } else if !is_labelled(apex) {
        list.push(json!({"op": "add", "path": "/metadata/labels/linkspan.dev~1split", "value": "true"}));
    }
    operations(&Value::Array(list))
}

fn unlabel_patch(apex: &Service) -> Option<Patch<()>> {
    if !is_labelled(apex) {
        return None;
    }
    operations(&json!([
        {"op": "test", "path": "/metadata/labels/linkspan.dev~1split", "value": "true"},
        {"op": "remove", "path": "/metadata/labels/linkspan.dev~1split"},
    ]))
}

async fn call<T>(key: &Key, request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match timeout(WRITE_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        // A failed `test` is answered 422.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
            Err(WriteError::Stale(key.clone()))
        }
        Ok(Err(error)) => Err(WriteError::Failed(key.clone(), with_causes(&error))),
        Err(_) => {
            let message = format!("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs());
            Err(WriteError::Failed(key.clone(), message))
        }
    }
}
