//! Which ports a mirror offers, and where each leads.

use crate::{
    desired::is_root,
    ports::Route,
    snapshot::{Origin, Snapshot},
    status::verdict::Failure,
};
use linkspan_core::api::{
    exported_service::{ExportedPort, ExportedServiceSpec},
    names::Target,
};
use std::collections::{BTreeMap, BTreeSet};

/// One port of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MirrorPort {
    /// Name; empty for a Service's only port.
    pub(super) name: String,
    /// What clients call.
    pub(super) port: u16,
    /// As the Service in the target cluster says.
    pub(super) app_protocol: Option<String>,
    /// Where it leads in the target cluster.
    pub(super) leads_to: Target,
    /// Port of the gateway, or of the pods for a headless root.
    pub(super) target: u16,
    /// Whether the target cluster has an endpoint for it.
    pub(super) ready: bool,
}

fn tcp(export: &ExportedServiceSpec) -> impl Iterator<Item = &ExportedPort> {
    export.ports.iter().filter(|port| port.protocol == "TCP")
}

fn route(origin: &Origin, port: u16) -> Route {
    let target = Target {
        host: origin.host.clone(),
        service: origin.service.clone(),
        namespace: origin.namespace.clone(),
        port,
    };
    Route { link: origin.link.clone(), target }
}

/// What `origin`'s mirror needs a port of the gateway for. A headless root needs none: its pods' mirrors have them.
pub fn routes(snapshot: &Snapshot, origin: &Origin) -> BTreeSet<Route> {
    match snapshot.export(origin) {
        Some(export) if !is_root(origin, &export) => tcp(&export).map(|p| route(origin, p.port)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The ports that cannot cross a link, told.
pub fn left_out(export: &ExportedServiceSpec) -> Option<Failure> {
    let other = export.ports.iter().filter(|port| port.protocol != "TCP");
    let named: Vec<String> = other.map(|p| format!("{}/{}", p.port, p.protocol)).collect();
    let message = format!("left out, because only TCP crosses a link: {}", named.join(", "));
    (!named.is_empty()).then(|| Failure::new("PortsLeftOut", message))
}

/// The ports of `origin`'s mirror, those of its routes at `assigned`.
pub(super) fn mirror_ports(
    origin: &Origin,
    export: &ExportedServiceSpec,
    assigned: &BTreeMap<Route, u16>,
) -> Vec<MirrorPort> {
    if is_root(origin, export) {
        let root =
            |p: &ExportedPort| mirror_port(origin, p, p.port, p.target_port.unwrap_or(p.port), p.ready);
        return tcp(export).map(root).collect();
    }
    let member = export.members.iter().find(|m| Some(&m.hostname) == origin.host.as_ref());
    let routed: Vec<(&ExportedPort, u16)> =
        tcp(export).filter_map(|p| Some((p, *assigned.get(&route(origin, p.port))?))).collect();
    let Some(member) = member else {
        return routed
            .into_iter()
            .map(|(p, gateway)| mirror_port(origin, p, p.port, gateway, p.ready))
            .collect();
    };
    // Clients of a headless Service dial the pods' ports; those who read the Service dial its own.
    let mut ports: Vec<MirrorPort> = Vec::new();
    for (p, gateway) in &routed {
        let called = p.target_port.unwrap_or(p.port);
        if ports.iter().all(|known| known.port != called) {
            ports.push(mirror_port(origin, p, called, *gateway, member.ready));
        }
    }
    for (p, gateway) in &routed {
        if ports.iter().all(|known| known.port != p.port) {
            let mut port = mirror_port(origin, p, p.port, *gateway, member.ready);
            port.name = format!("service-{}", p.port);
            ports.push(port);
        }
    }
    if ports.len() > 1 {
        for port in ports.iter_mut().filter(|port| port.name.is_empty()) {
            port.name = format!("port-{}", port.port);
        }
    }
    ports
}

fn mirror_port(origin: &Origin, from: &ExportedPort, port: u16, target: u16, ready: bool) -> MirrorPort {
    MirrorPort {
        name: from.name.clone(),
        port,
        app_protocol: from.app_protocol.clone(),
        leads_to: route(origin, from.port).target,
        target,
        ready,
    }
}
