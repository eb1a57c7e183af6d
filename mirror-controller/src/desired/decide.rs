//! Who gets a local name, and why others do not.

use crate::{
    desired::routes,
    snapshot::{Key, Origin, Snapshot, standing::StandingService},
    status::verdict::Failure,
};
use linkspan_core::api::names;

/// What is to be done under a local name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: this cluster's side is not known completely yet.
    Wait,
    /// The mirror of this origin should stand.
    Mirror(Origin),
    /// Nothing of ours should stand.
    Clear,
    /// What stands belongs to this link, whose target has not been listed yet: keep it, and follow liveness only.
    Hold(String),
    /// A Service that is not ours stands there: leave it alone.
    Leave,
}

/// A decision, and who was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What is to be done.
    pub decision: Decision,
    /// Who asked for the name in vain, with the reason.
    pub refused: Vec<(Origin, Failure)>,
}

/// The link that the Service `service` under `key` mirrors for, or `None` when it is not ours. A slice of ours that it
/// owns proves it even when labels or annotations were removed by hand.
pub fn owner_of(snapshot: &Snapshot, key: &Key, service: &StandingService) -> Option<String> {
    let uid = Some(&*service.state.uid);
    let owned = snapshot.slices_of(key).iter().find(|slice| slice.owner.as_deref() == uid);
    let link = owned.and_then(|slice| slice.link.as_deref());
    link.or_else(|| service.link.as_deref().filter(|_| service.marked)).map(str::to_owned)
}

/// Decides what stands under `key`.
pub fn decide(snapshot: &Snapshot, key: &Key) -> Decided {
    let claims = snapshot.claims(key);
    let refuse_all = |decision, why: Failure| Decided {
        decision,
        refused: claims.clone().map(|origin| (origin.clone(), why.clone())).collect(),
    };
    if !snapshot.local_synced() {
        return Decided { decision: Decision::Wait, refused: Vec::new() };
    }
    let standing = snapshot.service(key);
    let owner = standing.and_then(|service| owner_of(snapshot, key, service));
    if let Some(whose) = foreign(snapshot, key, standing, owner.as_ref()) {
        let message =
            format!("Service {key} is in the way: {whose}; rename or delete it, and the mirror is made");
        return refuse_all(Decision::Leave, Failure::new("Conflict", message));
    }
    if let Some(link) = unlisted_owner(snapshot, key, owner.as_deref()) {
        let message =
            format!("name {key} is taken by a mirror of link {link}, whose cluster is not reached yet");
        return refuse_all(Decision::Hold(link), Failure::new("NameTaken", message));
    }
    let Some(winner) = claims.clone().min_by_key(|o| rank(snapshot, o, owner.as_ref())) else {
        return Decided { decision: Decision::Clear, refused: Vec::new() };
    };
    let taken = format!("name {key} is taken by the mirror of {}", told(winner));
    let mut refused: Vec<(Origin, Failure)> = claims
        .filter(|origin| *origin != winner)
        .map(|origin| (origin.clone(), Failure::new("NameTaken", taken.clone())))
        .collect();
    let decision = match obstacle(snapshot, key, winner) {
        None => Decision::Mirror(winner.clone()),
        Some(failure) => {
            refused.push((winner.clone(), failure));
            Decision::Clear
        }
    };
    Decided { decision, refused }
}

/// What stands under `key`, if it is not ours.
fn foreign(
    snapshot: &Snapshot,
    key: &Key,
    standing: Option<&StandingService>,
    owner: Option<&String>,
) -> Option<String> {
    match standing {
        Some(_) if owner.is_some() => None,
        Some(_) => Some("it carries the label of a mirror but was not made by this controller".to_owned()),
        None => snapshot.occupant(key).map(str::to_owned),
    }
}

/// The link that what stands belongs to, if it exists, does not ask for the name, and may do so once it was listed.
fn unlisted_owner(snapshot: &Snapshot, key: &Key, owner: Option<&str>) -> Option<String> {
    let by_slice = || snapshot.slices_of(key).iter().find_map(|slice| slice.link.as_deref());
    let link = owner.or_else(by_slice)?;
    let listed = snapshot.remotes.get(link).is_some_and(|remote| remote.synced);
    let asks = snapshot.claims(key).any(|origin| origin.link == link);
    (snapshot.links.items.contains_key(link) && !listed && !asks).then(|| link.to_owned())
}

/// Order of those who ask for one name: Services before pods of headless ones, who has it before who wants it, older
/// links before younger.
fn rank<'a>(snapshot: &Snapshot, origin: &'a Origin, owner: Option<&String>) -> impl Ord + use<'a> {
    let created = snapshot.links.items.get(&origin.link).and_then(|link| link.created);
    (origin.host.is_some(), Some(&origin.link) != owner, created, origin)
}

/// What stands against a mirror of `origin`.
fn obstacle(snapshot: &Snapshot, key: &Key, origin: &Origin) -> Option<Failure> {
    let link = snapshot.links.items.get(&origin.link)?;
    let name = origin.host.as_ref().unwrap_or(&origin.service);
    if let Err(error) = names::mirror_name(name, &link.cluster_name) {
        return Some(Failure::new("InvalidService", error.to_string()));
    }
    if !names::is_dns_label(&key.name) {
        let message = format!("{:?} is no name that a Service can have", key.name);
        return Some(Failure::new("InvalidService", message));
    }
    let missing = !snapshot.namespaces.items.contains_key(&key.namespace);
    if missing && !snapshot.makes_namespace(&key.namespace, &link.name) {
        let message =
            format!("namespace {0} does not exist: create it, and the mirror is made", key.namespace);
        return Some(Failure::new("MissingNamespace", message));
    }
    let has_tcp = snapshot.export(origin).is_some_and(|e| e.ports.iter().any(|p| p.protocol == "TCP"));
    if !has_tcp || (routes(snapshot, origin).is_empty() && origin.host.is_some()) {
        let message = "the Service exports no TCP port, and only TCP crosses a link".to_owned();
        return Some(Failure::new("InvalidService", message));
    }
    None
}

fn told(origin: &Origin) -> String {
    let host = origin.host.as_ref().map(|h| format!("{h}.")).unwrap_or_default();
    format!("{host}{}.{} of link {}", origin.service, origin.namespace, origin.link)
}
