//! From what is known to what must be written, for one local name. Pure but for the ports it settles and the verdicts
//! it notes in the snapshot.

use crate::{
    desired::{self, Decision},
    diff::{Change, diff, diff_slices},
    ports::Route,
    snapshot::{Key, Origin, Snapshot},
    status::verdict::{Failure, Verdict},
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What must be written under `key`, in this order. After a Service was made, its slices come with the next plan.
pub fn plan(snapshot: &mut Snapshot, key: &Key, now: Timestamp) -> Vec<Change> {
    let decided = desired::decide(snapshot, key);
    for (origin, failure) in decided.refused {
        snapshot.judge(&origin, Verdict::Failed(failure));
    }
    match decided.decision {
        Decision::Wait => Vec::new(),
        Decision::Clear => {
            give_back(snapshot, key, now);
            let ours = snapshot.services.items.get(key);
            diff(None, ours, &snapshot.slices_of(key))
        }
        Decision::Leave => {
            give_back(snapshot, key, now);
            diff(None, None, &snapshot.slices_of(key))
        }
        Decision::Hold(_) => diff_slices(&desired::held(snapshot, key), &snapshot.slices_of(key)),
        Decision::Mirror(origin) => mirror(snapshot, key, &origin, now),
    }
}

fn mirror(snapshot: &mut Snapshot, key: &Key, origin: &Origin, now: Timestamp) -> Vec<Change> {
    let routes = desired::routes(snapshot, origin);
    let assigned = match settle(snapshot, key, &routes, now) {
        Ok(assigned) => assigned,
        Err(failure) => {
            snapshot.judge(origin, Verdict::Failed(failure));
            return Vec::new();
        }
    };
    let Some(mirror) = desired::mirror_of(snapshot, key, origin, &assigned) else { return Vec::new() };
    // While the Service does not stand, what was told last stays: it may be why.
    if snapshot.services.items.contains_key(key) {
        let left_out = snapshot.export(origin).and_then(desired::left_out).filter(|_| origin.host.is_none());
        snapshot.judge(origin, left_out.map_or(Verdict::Mirrored, Verdict::Partly));
    }
    diff(Some(&mirror), snapshot.services.items.get(key), &snapshot.slices_of(key))
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
