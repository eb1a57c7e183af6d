//! What must be written so that what stands becomes what should stand: a pure function of both.
//!
//! Whole specs, labels and annotations are compared, so foreign additions to a mirror are removed. Nothing is ever
//! named here that the caller did not hand in as ours.

use crate::{desired::Mirror, snapshot::Key};
use k8s_openapi::api::{
    core::v1::{Service, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt, api::ObjectMeta};
use linkspan_core::api::exported_service::ExportedService;

/// An object to delete, in exactly the state that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub key: Key,
    /// Its uid.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<String>,
}

impl Seen {
    /// `object` as it was seen.
    pub fn of(object: &impl ResourceExt) -> Self {
        Self { key: Key::of(object), uid: object.uid(), resource_version: object.resource_version() }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
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
    /// Delete a slice, unless it changed since.
    DeleteSlice(Seen),
    /// Publish an exported Service.
    CreateExport(Box<ExportedService>),
    /// Replace what is published, unless it changed since.
    UpdateExport(Box<ExportedService>),
    /// Publish it no longer.
    DeleteExport(Seen),
}

/// What turns `service` and `slices` (ours, under one name) into `desired`.
pub fn diff(desired: Option<&Mirror>, service: Option<&Service>, slices: &[&EndpointSlice]) -> Vec<Change> {
    // What is being deleted is waited for.
    if service.is_some_and(|s| s.metadata.deletion_timestamp.is_some()) {
        return Vec::new();
    }
    let Some(desired) = desired else {
        let slices = slices.iter().map(|slice| Change::DeleteSlice(Seen::of(*slice)));
        return service.map(|s| Change::DeleteService(Seen::of(s))).into_iter().chain(slices).collect();
    };
    let mut changes = Vec::new();
    match service {
        None => changes.push(Change::CreateService(Box::new(desired.service.clone()))),
        Some(standing) if is_headless(standing) != is_headless(&desired.service) => {
            changes.push(Change::DeleteService(Seen::of(standing)));
        }
        Some(standing) => {
            let wanted = with_assigned(&desired.service, standing);
            if wanted != without_noise(standing) {
                changes.push(Change::UpdateService(Box::new(wanted)));
            }
        }
    }
    if service.is_some() {
        changes.extend(diff_slices(&desired.slices, slices));
    }
    changes
}

/// What turns `slices` (ours, of one Service) into `desired`.
pub fn diff_slices(desired: &[EndpointSlice], slices: &[&EndpointSlice]) -> Vec<Change> {
    let standing = |wanted: &EndpointSlice| slices.iter().find(|s| s.metadata.name == wanted.metadata.name);
    let mut changes = Vec::new();
    for wanted in desired {
        match standing(wanted) {
            None => changes.push(Change::CreateSlice(Box::new(wanted.clone()))),
            // The address family cannot be changed in place.
            Some(slice) if slice.address_type != wanted.address_type => {
                changes.push(Change::DeleteSlice(Seen::of(*slice)));
            }
            Some(slice) => {
                let mut wanted = wanted.clone();
                carry_identity(&mut wanted.metadata, &slice.metadata);
                let mut seen = (*slice).clone();
                strip(&mut seen.metadata);
                if wanted != seen {
                    changes.push(Change::UpdateSlice(Box::new(wanted)));
                }
            }
        }
    }
    let unwanted =
        slices.iter().filter(|s| desired.iter().all(|wanted| wanted.metadata.name != s.metadata.name));
    changes.extend(unwanted.map(|slice| Change::DeleteSlice(Seen::of(*slice))));
    changes
}

/// What turns the published object `standing` into `desired`.
pub fn diff_export(desired: Option<&ExportedService>, standing: Option<&ExportedService>) -> Option<Change> {
    match (desired, standing) {
        (None, None) => None,
        (None, Some(standing)) => Some(Change::DeleteExport(Seen::of(standing))),
        (Some(wanted), None) => Some(Change::CreateExport(Box::new(wanted.clone()))),
        (Some(wanted), Some(standing)) => {
            let mut wanted = wanted.clone();
            carry_identity(&mut wanted.metadata, &standing.metadata);
            let mut seen = standing.clone();
            strip(&mut seen.metadata);
            (wanted != seen).then(|| Change::UpdateExport(Box::new(wanted)))
        }
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// `desired` with what the API server has assigned to `standing`.
fn with_assigned(desired: &Service, standing: &Service) -> Service {
    let mut wanted = desired.clone();
    carry_identity(&mut wanted.metadata, &standing.metadata);
    if let (Some(spec), Some(seen)) = (wanted.spec.as_mut(), standing.spec.as_ref()) {
        carry_assigned(spec, seen);
    }
    wanted
}

fn carry_assigned(spec: &mut ServiceSpec, seen: &ServiceSpec) {
    // A Service that was turned into another type by hand may have lost its addresses: new ones are assigned.
    if spec.cluster_ip.is_none() {
        spec.cluster_ip.clone_from(&seen.cluster_ip);
    }
    spec.cluster_ips.clone_from(&seen.cluster_ips);
    spec.ip_families.clone_from(&seen.ip_families);
}

/// Everything of an object's identity that is not ours to decide.
fn carry_identity(wanted: &mut ObjectMeta, seen: &ObjectMeta) {
    strip(wanted);
    wanted.uid.clone_from(&seen.uid);
    wanted.resource_version.clone_from(&seen.resource_version);
    wanted.creation_timestamp.clone_from(&seen.creation_timestamp);
    wanted.generation = seen.generation;
    wanted.finalizers.clone_from(&seen.finalizers);
    wanted.deletion_timestamp.clone_from(&seen.deletion_timestamp);
    wanted.deletion_grace_period_seconds = seen.deletion_grace_period_seconds;
    if wanted.owner_references.is_none() {
        wanted.owner_references.clone_from(&seen.owner_references);
    }
}

fn without_noise(service: &Service) -> Service {
    let mut seen = Service { status: None, ..service.clone() };
    strip(&mut seen.metadata);
    seen
}

fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.generate_name = None;
    metadata.self_link = None;
}

#[cfg(test)]
mod tests;
