//! What the admin page says beyond `/live /ready /metrics`: `/links`, `/links?watch`, `/config`.

use crate::{app::Settings, probe::board::Board, source::Tables};
use hyper::{Request, StatusCode, body::Incoming};
use linkspan_core::process::admin::{Routes, answer, json, lines};
use serde_json::{Value, json};
use std::sync::Arc;

/// The gateway's own routes.
pub fn routes(board: Board, settings: Settings, tables: Tables) -> Routes {
    Arc::new(move |request: &Request<Incoming>| {
        let watch =
            request.uri().query().is_some_and(|query| query.split('&').any(|q| q.starts_with("watch")));
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/links") if watch => Some(lines(board.stream())),
            ("GET", "/links") => Some(answer(StatusCode::OK, "application/x-ndjson", board.lines())),
            ("GET", "/config") => Some(json(&config(&settings, &tables))),
            _ => None,
        }
    })
}

/// What the gateway works from, without secrets.
fn config(settings: &Settings, tables: &Tables) -> Value {
    let credentials = tables.credentials.borrow().clone();
    let links = tables.links.read(|table| {
        let row = |row: &Result<_, String>| match row {
            Ok(row) => json!(format!("{row:?}")),
            Err(problem) => json!({ "problem": problem }),
        };
        table.rows().iter().map(|(name, one)| (name.clone(), row(one))).collect::<serde_json::Map<_, _>>()
    });
    let (routes, conflicts) = tables.ports.read(|table| table.routes());
    let ports: serde_json::Map<String, Value> = routes
        .iter()
        .map(|(port, route)| {
            (port.to_string(), json!({ "link": route.link, "target": route.target.to_string() }))
        })
        .collect();
    let services: Vec<Value> = tables.services.read(|table| {
        let service =
            |((namespace, name), row): (&(String, String), &crate::ingress::service_table::ServiceRow)| {
                let ports: Vec<u16> = row.ports.iter().map(|p| p.port).collect();
                json!({ "namespace": namespace, "name": name, "ports": ports })
            };
        table.services().map(service).collect()
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "namespace": settings.namespace,
        "podName": settings.pod_name,
        "listen": settings.listen.to_string(),
        "egressAddr": settings.egress_addr.to_string(),
        "adminAddr": settings.admin_addr.to_string(),
        "drainTimeoutSeconds": settings.drain.total.as_secs(),
        "identity": credentials.server.as_ref().map(|server| server.identity.to_string()),
        "credentialsFor": credentials.clients.keys().collect::<Vec<_>>(),
        "problems": credentials.problems,
        "links": links,
        "ports": ports,
        "portConflicts": conflicts,
        "exportedServices": services,
    })
}
