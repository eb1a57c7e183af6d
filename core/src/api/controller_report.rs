//! What the controller tells `link-cli`: one JSON document at `GET :admin/links` of each of its pods.
//!
//! Only the leader's document is authoritative; `link-cli` asks every pod and takes the one that says `leader`.

use crate::api::reason::Reason;
use serde::{Deserialize, Serialize};

/// One controller pod's answer.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerReport {
    /// Whether this pod is the leader.
    pub leader: bool,
    /// All Links, by name.
    #[serde(default)]
    pub links: Vec<LinkReport>,
    /// What this pod's clock shows (RFC 3339).
    #[serde(default)]
    pub now: Option<String>,
}

/// How one link is.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkReport {
    /// Name of the Link.
    pub name: String,
    /// Whether the target gateway answers probes; `None` until the first verdict.
    pub alive: Option<bool>,
    /// Why it is not alive.
    pub reason: Option<Reason>,
    /// One sentence on the last failure.
    pub detail: Option<String>,
    /// Round trip of the last successful probe in milliseconds.
    pub latency_ms: Option<f64>,
    /// 50th, 95th and 99th percentile of the last successful probes in milliseconds.
    pub latency_percentiles_ms: Option<[f64; 3]>,
    /// Addresses of the target's gateway in use.
    pub addresses: Vec<String>,
    /// Whether the target cluster's API answers.
    pub connected: Option<bool>,
    /// Whether the mirrors equal what the target cluster exports.
    pub synced: Option<bool>,
    /// Mirrors that stand.
    pub mirrored_services: i64,
    /// Services that were selected but could not be mirrored.
    pub failing_services: i64,
    /// When the client certificate for this link ends (RFC 3339).
    pub certificate_expires_at: Option<String>,
    /// When the token for the target's API ends (RFC 3339); absent when there is none, or it does not end.
    pub token_expires_at: Option<String>,
    /// The clock of the target's API server minus the controller's, in whole seconds.
    pub clock_skew_seconds: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back_and_fields_may_be_missing() {
        let link = LinkReport {
            name: "west".into(),
            alive: Some(false),
            reason: Some(Reason::TlsTrust),
            ..LinkReport::default()
        };
        let report = ControllerReport { leader: true, links: vec![link], now: None };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ControllerReport>(&text).unwrap(), report);
        let short = r#"{"leader":true,"links":[{"name":"west"}]}"#;
        assert_eq!(serde_json::from_str::<ControllerReport>(short).unwrap().links[0].alive, None);
    }
}
