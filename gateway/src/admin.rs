//! What the admin page says beyond `/live /ready /metrics`: `/links`, `/links?watch`, `/splits`, `/config`, `/log-level`.
//!
//! The admin port is open to whoever collects metrics, so all of it may be read. What is logged can be changed from
//! the pod itself only: from there comes whom the API server lets `kubectl port-forward` or `exec`.

use crate::{app::Settings, probe::board::Board, source::Tables, split::port::Ports};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use linkspan_core::process::{
    admin::{Body, ClientAddress, Routes, answer, json, lines},
    logging::LogLevel,
};
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};

/// The gateway's own routes.
pub fn routes(board: Board, settings: Settings, tables: Tables, splits: Ports) -> Routes {
    Arc::new(move |request: &Request<Incoming>| {
        let watch =
            request.uri().query().is_some_and(|query| query.split('&').any(|q| q.starts_with("watch")));
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/links") if watch => Some(lines(board.stream())),
            ("GET", "/links") => Some(answer(StatusCode::OK, "application/x-ndjson", board.lines())),
            ("GET", "/splits") => Some(json(&splits.report())),
            ("GET", "/config") => Some(json(&config(&settings, &tables))),
            (_, "/log-level") => Some(log_level(request, settings.log_level.as_ref())),
            _ => None,
        }
    })
}

/// `GET /log-level` tells what is logged, `PUT /log-level?<level or filter>` changes it.
fn log_level(request: &Request<Incoming>, level: Option<&LogLevel>) -> Response<Body> {
    let Some(level) = level else {
        return answer(StatusCode::NOT_FOUND, "text/plain", "what is logged is not ours to change\n");
    };
    let from = request.extensions().get().map(|ClientAddress(from)| from.ip());
    let (status, text) = match allowed(request.method(), from) {
        Err(refused) => refused,
        Ok(false) => (StatusCode::OK, level.current()),
        Ok(true) => match level.set(request.uri().query().unwrap_or_default()) {
            Ok(()) => {
                tracing::info!(level = level.current(), "log level changed");
                (StatusCode::OK, level.current())
            }
            Err(problem) => (StatusCode::BAD_REQUEST, problem),
        },
    };
    answer(status, "text/plain", format!("{text}\n"))
}

/// Whether what is logged changes by a request of `method` from the address `from`.
fn allowed(method: &Method, from: Option<IpAddr>) -> Result<bool, (StatusCode, String)> {
    match *method {
        Method::GET => Ok(false),
        Method::PUT if from.is_some_and(|from| from.to_canonical().is_loopback()) => Ok(true),
        Method::PUT => {
            let advice = "only from the pod itself: use kubectl port-forward, then PUT to localhost";
            Err((StatusCode::FORBIDDEN, advice.to_owned()))
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "use GET, or PUT /log-level?debug".to_owned())),
    }
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
        "limits": {
            "maxHandshakes": settings.limits.max_handshakes,
            "maxHandshakesPerAddress": settings.limits.max_handshakes_per_address,
            "handshakeRate": settings.limits.handshake_rate,
            "handshakeRatePerAddress": settings.limits.handshake_rate_per_address,
            "maxFlowsPerPeer": settings.limits.max_flows_per_peer,
            "idleTimeoutSeconds": settings.limits.idle_timeout.as_secs(),
        },
        "problem": *tables.problem.borrow(),
        "identity": credentials.server.as_ref().map(|server| server.identity.to_string()),
        "credentialsFor": credentials.clients.keys().collect::<Vec<_>>(),
        "problems": credentials.problems,
        "links": links,
        "ports": ports,
        "portConflicts": conflicts,
        "exportedServices": services,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_is_changed_from_the_machine_itself_only() {
        let asked = |method, from: &str| allowed(&method, from.parse().ok()).map_err(|(status, _)| status);
        assert_eq!(asked(Method::PUT, "127.0.0.1"), Ok(true));
        assert_eq!(asked(Method::PUT, "::1"), Ok(true));
        assert_eq!(asked(Method::PUT, "::ffff:127.0.0.1"), Ok(true));
        assert_eq!(asked(Method::PUT, "10.0.0.1"), Err(StatusCode::FORBIDDEN));
        assert_eq!(asked(Method::PUT, "nobody"), Err(StatusCode::FORBIDDEN));
        assert_eq!(asked(Method::GET, "10.0.0.1"), Ok(false));
        assert_eq!(asked(Method::DELETE, "127.0.0.1"), Err(StatusCode::METHOD_NOT_ALLOWED));
    }
}
