//! What should stand under a local name: a pure function of the snapshot.
//!
//! [`decide`] says who gets the name and why others do not; [`mirror_of`] says what the objects look like.

mod decide;
mod ports;
mod service;
mod slices;

pub use decide::{Decided, Decision, decide, owner_of};
pub use ports::{left_out, routes};
pub use slices::held;

use crate::{
    ports::Route,
    snapshot::{Key, Origin, Snapshot},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::collections::BTreeMap;

/// The objects of one mirror.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The Service. What the API server assigns (addresses, families) is left open.
    pub service: Service,
    /// Its slices; none before the Service stands, because they name its uid and follow its families.
    pub slices: Vec<EndpointSlice>,
}

/// The mirror of `origin` under the name `key`, its routes at the gateway's ports `assigned`. `None` when the origin
/// is not known any more.
pub fn mirror_of(
    snapshot: &Snapshot,
    key: &Key,
    origin: &Origin,
    assigned: &BTreeMap<Route, u16>,
) -> Option<Mirror> {
    let link = snapshot.links.items.get(&origin.link)?;
    let export = snapshot.export(origin)?;
    let ports = ports::mirror_ports(origin, &export, assigned);
    let service = service::service(key, link, origin, &export, &ports);
    let slices = match snapshot.service(key) {
        Some(standing) if is_root(origin, &export) => slices::of_root(snapshot, key, link, &export, standing),
        Some(standing) => slices::of_mirror(snapshot, key, link, &ports, standing),
        None => Vec::new(),
    };
    Some(Mirror { service, slices })
}

/// Whether `origin` is a headless Service whose pods are mirrored one by one.
fn is_root(origin: &Origin, export: &linkspan_core::api::exported_service::ExportedServiceSpec) -> bool {
    origin.host.is_none() && export.headless && !export.members.is_empty()
}

#[cfg(test)]
mod tests;
