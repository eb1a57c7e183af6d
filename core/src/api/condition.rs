//! Kubernetes conditions, changed only when they say something new.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition of an object's status, in Kubernetes' usual form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said, e.g. `GatewayAlive`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word for programs.
    #[serde(default)]
    pub reason: String,
    /// One sentence for people: what is wrong, why, and what mends it.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed (RFC 3339).
    #[serde(default)]
    pub last_transition_time: String,
}

impl Condition {
    /// A condition that is `True`, not yet dated.
    pub fn yes(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "True", reason, message)
    }

    /// A condition that is `False`, not yet dated.
    pub fn no(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "False", reason, message)
    }

    /// A condition nobody knows yet, not yet dated.
    pub fn unknown(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "Unknown", reason, message)
    }

    fn new(kind: &str, status: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: String::new(),
        }
    }
}

/// Dates `new` conditions: one whose status is that of `old` keeps its time, any other gets `now`.
pub fn dated(old: &[Condition], new: Vec<Condition>, now: Timestamp) -> Vec<Condition> {
    new.into_iter()
        .map(|mut condition| {
            let before = old.iter().find(|o| o.kind == condition.kind && o.status == condition.status);
            condition.last_transition_time = match before {
                Some(o) if !o.last_transition_time.is_empty() => o.last_transition_time.clone(),
                _ => format!("{now:.0}"),
            };
            condition
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_dated_anew_only_when_its_status_changes() {
        let t0: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let t1: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let first = dated(&[], vec![Condition::yes("Synced", "Synced", "all")], t0);
        assert_eq!(first[0].last_transition_time, "2026-01-01T00:00:00Z");
        let same = dated(&first, vec![Condition::yes("Synced", "Synced", "still all")], t1);
        assert_eq!(same[0].last_transition_time, "2026-01-01T00:00:00Z");
        let other = dated(&same, vec![Condition::no("Synced", "Unreachable", "gone")], t1);
        assert_eq!(other[0].last_transition_time, "2026-01-02T00:00:00Z");
    }
}
