//! What must be written so that what stands becomes what should stand: a pure function of both.
//!
//! Whole specs, labels and annotations are compared, so foreign additions to a mirror are removed. Nothing is ever
//! named here that the caller did not hand in as ours.

use crate::{
    desired::Mirror,
    snapshot::{
        Key,
        packed::PackedObject,
        standing::{
            StandingService, StandingSlice, State, endpoints_print, is_headless, service_print, slice_print,
        },
    },
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::api::ObjectMeta;
use linkspan_core::api::exported_service::ExportedService;

/// An object in exactly the state that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub key: Key,
    /// Its uid and resource version.
    pub state: State,
}

impl Seen {
    /// The object `key` in `state`.
    pub fn new(key: Key, state: &State) -> Self {
        Self { key, state: state.clone() }
    }

    /// A slice of the Service `service` as it stands.
    pub fn slice(service: &Key, slice: &StandingSlice) -> Self {
        Self::new(Key::new(&service.namespace, &*slice.name), &slice.state)
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Make a namespace for mirrors.
    CreateNamespace(Box<Namespace>),
    /// Make a Service.
    CreateService(Box<Service>),
    /// Replace a Service, unless it changed since.
    UpdateService(Box<Service>),
    /// Delete a Service, unless it changed since.
    DeleteService(Seen),
    /// Make a slice.
    CreateSlice(Box<EndpointSlice>),
    /// Replace a slice, unless it changed since.
    UpdateSlice(Box<EndpointSlice>),
    /// Replace a slice's endpoints and nothing else, unless it changed since.
    PlaceEndpoints(Seen, Vec<Endpoint>),
    /// Delete a slice, unless it changed since.
    DeleteSlice(Seen),
    /// Publish an exported Service.
    CreateExport(Box<ExportedService>),
    /// Replace what is published, unless it changed since.
    UpdateExport(Box<ExportedService>),
    /// Publish it no longer.
    DeleteExport(Seen),
}

/// What turns what stands under `key`, `service` and `slices` (ours), into `desired`.
pub fn diff(
    key: &Key,
    desired: Option<&Mirror>,
    service: Option<&StandingService>,
    slices: &[StandingSlice],
) -> Vec<Change> {
    // What is being deleted is waited for.
    if service.is_some_and(|s| s.going) {
        return Vec::new();
    }
    let Some(desired) = desired else {
        let slices = slices.iter().map(|slice| Change::DeleteSlice(Seen::slice(key, slice)));
        let service = service.map(|s| Change::DeleteService(Seen::new(key.clone(), &s.state)));
        return service.into_iter().chain(slices).collect();
    };
    let mut changes = Vec::new();
    match service {
        None => changes.push(Change::CreateService(Box::new(desired.service.clone()))),
        Some(standing) if standing.headless != is_headless(&desired.service) => {
            changes.push(Change::DeleteService(Seen::new(key.clone(), &standing.state)));
        }
        Some(standing) if standing.print != service_print(desired.service.clone()) => {
            changes.push(Change::UpdateService(Box::new(with_assigned(&desired.service, standing))));
        }
        Some(_) => {}
    }
    if service.is_some() {
        changes.extend(diff_slices(key, &desired.slices, slices));
    }
    changes
}

/// What turns `slices` (ours, of the Service `key`) into `desired`.
pub fn diff_slices(key: &Key, desired: &[EndpointSlice], slices: &[StandingSlice]) -> Vec<Change> {
    let standing =
        |wanted: &EndpointSlice| slices.iter().find(|s| wanted.metadata.name.as_deref() == Some(&*s.name));
    let mut changes = Vec::new();
    for wanted in desired {
        match standing(wanted) {
            None => changes.push(Change::CreateSlice(Box::new(wanted.clone()))),
            // The address family cannot be changed in place.
            Some(slice) if slice.family.as_str() != wanted.address_type => {
                changes.push(Change::DeleteSlice(Seen::slice(key, slice)));
            }
            Some(slice)
                if slice.print != slice_print(wanted)
                    || slice.endpoints != endpoints_print(&wanted.endpoints) =>
            {
                let mut wanted = wanted.clone();
                name_state(&mut wanted.metadata, &slice.state);
                wanted.metadata.finalizers = slice.finalizers.as_deref().cloned();
                changes.push(Change::UpdateSlice(Box::new(wanted)));
            }
            Some(_) => {}
        }
    }
    let unwanted = slices
        .iter()
        .filter(|s| desired.iter().all(|wanted| wanted.metadata.name.as_deref() != Some(&*s.name)));
    changes.extend(unwanted.map(|slice| Change::DeleteSlice(Seen::slice(key, slice))));
    changes
}

/// What turns the published object `standing` into `desired`.
pub fn diff_export(
    desired: Option<&ExportedService>,
    standing: Option<(&Key, &PackedObject<ExportedService>)>,
) -> Option<Change> {
    match (desired, standing) {
        (None, None) => None,
        (None, Some((key, standing))) => Some(Change::DeleteExport(Seen::new(key.clone(), &standing.state))),
        (Some(wanted), None) => Some(Change::CreateExport(Box::new(wanted.clone()))),
        (Some(wanted), Some((_, standing))) => {
            let seen = standing.object.open();
            let (was, is) = (&seen.metadata, &wanted.metadata);
            let same =
                seen.spec == wanted.spec && was.labels == is.labels && was.annotations == is.annotations;
            let mut wanted = wanted.clone();
            name_state(&mut wanted.metadata, &standing.state);
            wanted.metadata.finalizers = seen.metadata.finalizers;
            wanted.metadata.owner_references = seen.metadata.owner_references;
            (!same).then(|| Change::UpdateExport(Box::new(wanted)))
        }
    }
}

/// `desired` with what the API server has assigned to `standing`.
fn with_assigned(desired: &Service, standing: &StandingService) -> Service {
    let mut wanted = desired.clone();
    name_state(&mut wanted.metadata, &standing.state);
    if let Some(kept) = &standing.kept {
        wanted.metadata.finalizers.clone_from(&kept.finalizers);
        wanted.metadata.owner_references.clone_from(&kept.owners);
    }
    if let Some(spec) = wanted.spec.as_mut() {
        let ips: Vec<String> = if standing.headless {
            vec!["None".to_owned()]
        } else {
            standing.ips.iter().map(ToString::to_string).collect()
        };
        // A Service that was turned into another type by hand may have lost its addresses: new ones are assigned.
        if !ips.is_empty() {
            spec.cluster_ip = ips.first().cloned();
            spec.cluster_ips = Some(ips);
            spec.ip_families = Some(standing.families.iter().map(|f| f.as_str().to_owned()).collect());
        }
    }
    wanted
}

fn name_state(wanted: &mut ObjectMeta, state: &State) {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    (wanted.uid, wanted.resource_version) = (given(&state.uid), given(&state.version));
}

#[cfg(test)]
mod tests;
