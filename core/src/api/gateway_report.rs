//! What a gateway pod tells the controller: newline-delimited JSON at `GET :admin/links?watch`.
//!
//! A stream begins with one [`Event::State`] and one [`Event::Ports`]; each change repeats the whole of what
//! changed. Between changes a [`Event::Heartbeat`] goes out every second, so that silence means a dead pod.
//! `GET :admin/links` without `?watch` answers the first two lines and ends.

use crate::api::reason::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// All links as this pod sees them, and whether it is leaving.
    State {
        /// Shutting down: it still serves, but should get nothing new.
        draining: bool,
        /// By name of the Link.
        links: BTreeMap<String, LinkHealth>,
    },
    /// All ports of our slices that this pod listens on, and those it could not bind with the cause.
    Ports {
        /// Ports that accept connections.
        bound: Vec<u16>,
        /// Ports that could not be bound.
        failed: Vec<UnboundPort>,
    },
    /// Nothing changed; the pod lives.
    Heartbeat {},
}

/// A port that a slice names but that a gateway pod cannot listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnboundPort {
    /// The port.
    pub port: u16,
    /// The system's message.
    pub error: String,
}

/// How a gateway pod sees one link.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkHealth {
    /// Whether the target gateway answers probes. `None` until the first verdict.
    pub alive: Option<bool>,
    /// Why it is not alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// One sentence on the last failure: what was tried and what came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Round trip of the last successful probe in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// The last successful probes' 50th, 95th and 99th percentile in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_percentiles_ms: Option<[f64; 3]>,
    /// Successful probes since the pod started.
    #[serde(default)]
    pub probes_ok: u64,
    /// Failed probes since the pod started.
    #[serde(default)]
    pub probes_failed: u64,
    /// The addresses in use, `ip:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let health = LinkHealth {
            alive: Some(false),
            reason: Some(Reason::Refused),
            addresses: vec!["10.0.0.1:4143".into()],
            ..LinkHealth::default()
        };
        for event in [
            Event::State { draining: false, links: BTreeMap::from([("west".to_owned(), health)]) },
            Event::Ports {
                bound: vec![10000],
                failed: vec![UnboundPort { port: 10001, error: "in use".to_owned() }],
            },
            Event::Heartbeat {},
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
