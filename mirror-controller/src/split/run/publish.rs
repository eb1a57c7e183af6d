//! Tells what became of splits: conditions on each, and Events.

use super::{CALL, Memory, Splitter};
use crate::{
    snapshot::Key,
    split::{
        decide::Decided,
        step::Stage,
        tell::{Known, conditions, events},
    },
};
use kube::{
    Api, Resource,
    api::Patch,
    core::DynamicObject,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use linkspan_core::{
    api::{condition::Condition, labels::CONTROLLER, traffic_split::TrafficSplit},
    process::kube_client::as_manager,
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

impl Splitter {
    /// Writes conditions and Events where they say something new.
    pub(super) async fn tell(
        &self,
        decided: &Decided,
        stages: &BTreeMap<Key, (Stage, Option<String>)>,
        memory: &mut Memory,
    ) {
        let now = self.clock.now();
        let splits = self.read(|table| table.splits.items.clone());
        memory.told.retain(|(key, uid), _| splits.get(key).is_some_and(|s| s.metadata.uid == *uid));
        for (key, mut split) in splits {
            let apex = Key::new(&key.namespace, &split.spec.service);
            let (stage, failed) = stages.get(&apex).cloned().unzip();
            let known = Known {
                verdict: decided.verdicts.get(&key).cloned().unwrap_or_default(),
                stage,
                failed: failed.flatten(),
                contested: memory.memos.get(&apex).is_some_and(|m| m.contest.is_contested()),
            };
            let id = (key.clone(), split.metadata.uid.clone());
            if let Some(told) = memory.told.get(&id) {
                split.status.get_or_insert_default().conditions.clone_from(told);
            }
            let old = split.status.clone().unwrap_or_default().conditions;
            let new = conditions(&split, &known, now);
            if new == old {
                continue;
            }
            let notes = events(&old, &new);
            if self.publish(&split, &key, &new, notes).await {
                memory.told.insert(id, new);
            } else {
                self.news.notify_one();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Whether it was written.
    async fn publish(
        &self,
        split: &TrafficSplit,
        key: &Key,
        conditions: &[Condition],
        notes: Vec<(bool, String, String)>,
    ) -> bool {
        let Some(resource) = self.version.borrow().clone() else { return true };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        match timeout(CALL, api.patch_status(&key.name, &as_manager(), &patch)).await {
            Ok(Ok(_)) => {}
            // It is gone, or somebody else's definition has no status: Events still tell.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => {
                tracing::warn!(split = %key, %error, "status of a TrafficSplit cannot be written; trying again");
                return false;
            }
            Err(_) => return false,
        }
        let mut reference = split.object_ref(&());
        reference.api_version = Some(resource.api_version.clone());
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        for (warning, reason, note) in notes {
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                reason,
                note: Some(note.chars().take(1000).collect()),
                action: "Split".to_owned(),
                secondary: None,
            };
            // An Event is worth no second try: the condition stays.
            if let Ok(Err(error)) = timeout(CALL, recorder.publish(&event, &reference)).await {
                tracing::debug!(split = %key, %error, "an Event cannot be written");
            }
        }
        true
    }
}
