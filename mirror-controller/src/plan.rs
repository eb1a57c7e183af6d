//! From what is known to what must be written, for one local name. Pure but for the ports it settles and the verdicts
//! it notes in the snapshot.

use crate::{
    desired::{self, Decision},
    diff::{Change, Seen, diff},
    ports::{self, Route},
    snapshot::{Key, Origin, Snapshot},
    status::verdict::{Failure, Verdict},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ObjectMeta;
use linkspan_core::api::labels::{CLUSTER_NAME, MIRRORED_SERVICE};
use std::collections::{BTreeMap, BTreeSet};

/// What must be written under `key`, in this order. After a Service was made, its slices come with the next plan.
pub fn plan(snapshot: &mut Snapshot, key: &Key, now: Timestamp) -> Vec<Change> {
    if ports::is_of_split(key) {
        // The ports of a split Service are looked after with the split.
        return Vec::new();
    }
    let decided = desired::decide(snapshot, key);
    for (origin, failure) in decided.refused {
        snapshot.judge(key, &origin, Verdict::Failed(failure));
    }
    match decided.decision {
        Decision::Wait => Vec::new(),
        Decision::Clear => {
            give_back(snapshot, key, now);
            diff(key, None, snapshot.service(key), snapshot.slices_of(key))
        }
        Decision::Leave => {
            give_back(snapshot, key, now);
            diff(key, None, None, snapshot.slices_of(key))
        }
        Decision::Hold(_) => {
            let slices = snapshot.slices_of(key).iter();
            let place = slices.filter_map(|slice| {
                let seen = Seen::new(Key::new(&key.namespace, &*slice.name), &slice.state);
                Some(Change::PlaceEndpoints(seen, desired::held(snapshot, slice)?))
            });
            place.collect()
        }
        Decision::Mirror(origin) if !snapshot.namespaces.items.contains_key(&key.namespace) => {
            vec![Change::CreateNamespace(Box::new(namespace(&key.namespace, &origin.link)))]
        }
        Decision::Mirror(origin) => plan_mirror(snapshot, key, &origin, now),
    }
}

fn plan_mirror(snapshot: &mut Snapshot, key: &Key, origin: &Origin, now: Timestamp) -> Vec<Change> {
    let routes = desired::routes(snapshot, origin);
    let assigned = match settle(snapshot, key, &routes, now) {
        Ok(assigned) => assigned,
        Err(failure) => {
            snapshot.judge(key, origin, Verdict::Failed(failure));
            return Vec::new();
        }
    };
    let Some(mirror) = desired::mirror_of(snapshot, key, origin, &assigned) else { return Vec::new() };
    let standing = snapshot.service(key).cloned();
    let mut changes = diff(key, Some(&mirror), standing.as_ref(), snapshot.slices_of(key));
    if let Some(standing) = standing {
        let kubernetes = snapshot.kubernetes_slices_of(key, &standing).into_iter();
        changes.extend(kubernetes.map(|s| Change::DeleteSlice(Seen::new(s.key.clone(), &s.state))));
        // While the Service does not stand, what was told last stays: it may be why.
        let left_out = snapshot.export(origin).as_ref().and_then(desired::left_out);
        let left_out = left_out.filter(|_| origin.host.is_none());
        snapshot.judge(key, origin, left_out.map_or(Verdict::Mirrored, Verdict::Partly));
    }
    changes
}

/// A namespace that is made for mirrors of link `link`. It is never deleted: others may use it by then.
fn namespace(name: &str, link: &str) -> Namespace {
    let labels = [(MIRRORED_SERVICE, "true"), (CLUSTER_NAME, link)];
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    };
    Namespace { metadata, ..Namespace::default() }
}

fn settle(
    snapshot: &mut Snapshot,
    key: &Key,
    routes: &BTreeSet<Route>,
    now: Timestamp,
) -> Result<BTreeMap<Route, u16>, Failure> {
    let Some(ports) = snapshot.ports.as_mut() else { return Ok(BTreeMap::new()) };
    ports.settle(key, routes, now).map_err(|error| Failure::new("PortsExhausted", error.to_string()))
}

fn give_back(snapshot: &mut Snapshot, key: &Key, now: Timestamp) {
    if let Some(ports) = snapshot.ports.as_mut() {
        // Giving back needs no free port, so it cannot fail.
        let _ = ports.settle(key, &BTreeSet::new(), now);
    }
}

#[cfg(test)]
mod tests;
