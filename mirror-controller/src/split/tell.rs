//! What is said of a split: conditions, and an Event where they say something new. Pure; `run` writes it.

use crate::split::{
    decide::{Verdict, Why},
    step::Stage,
};
use jiff::Timestamp;
use linkspan_core::api::{
    condition::{Condition, dated},
    traffic_split::TrafficSplit,
};

/// Type of the condition that says whether the gateways share out the apex's traffic.
pub const ACTIVE: &str = "Active";
/// Type of the condition that says whether all backends can be used.
pub const RESOLVED: &str = "BackendsResolved";
/// Type of the condition that says that somebody drops our key.
pub const CONTESTED: &str = "SelectorContested";

/// What is known of one split.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What was decided.
    pub verdict: Verdict,
    /// How far its apex is, if it holds.
    pub stage: Option<Stage>,
    /// What could not be written.
    pub failed: Option<String>,
    /// Whether somebody dropped our key lately.
    pub contested: bool,
}

/// The conditions that `split` should have.
pub fn conditions(split: &TrafficSplit, known: &Known, now: Timestamp) -> Vec<Condition> {
    let old = split.status.clone().unwrap_or_default().conditions;
    let mut conditions = vec![active(split, known), resolved(&known.verdict)];
    if known.contested {
        let message = format!(
            "somebody removes the key linkspan.dev/split from the selector of Service {}; it is added again, ever more \
             slowly: apply the Service's manifest without replacing its selector, or delete the split",
            split.spec.service
        );
        conditions.push(Condition::yes(CONTESTED, CONTESTED, message));
    } else if old.iter().any(|c| c.kind == CONTESTED) {
        conditions.push(Condition::no(CONTESTED, "Calm", "nobody has removed our key lately"));
    }
    dated(&old, conditions, now)
}

fn active(split: &TrafficSplit, known: &Known) -> Condition {
    if let Some(Why { reason, message }) = &known.verdict.refused {
        return Condition::no(ACTIVE, reason, message.clone());
    }
    if let Some(error) = &known.failed {
        return Condition::no(ACTIVE, "Error", error.clone());
    }
    let apex = &split.spec.service;
    match known.stage {
        Some(Stage::Active) => {
            Condition::yes(ACTIVE, ACTIVE, format!("the gateways share out the traffic of Service {apex}"))
        }
        Some(Stage::NoGateway) => Condition::no(
            ACTIVE,
            "NoReadyGateway",
            format!(
                "no gateway pod is ready: Service {apex} is served by its own pods; check Deployment linkspan-gateway"
            ),
        ),
        Some(Stage::TakingOver(waits)) => {
            Condition::no(ACTIVE, "TakingOver", format!("Service {apex} is being taken over: {waits}"))
        }
        Some(Stage::GivingBack | Stage::Gone) | None => {
            Condition::unknown(ACTIVE, "Pending", format!("Service {apex} has not been looked at yet"))
        }
    }
}

fn resolved(verdict: &Verdict) -> Condition {
    match verdict.left_out.first() {
        None => Condition::yes(RESOLVED, "Resolved", "all backends can be used"),
        Some(first) => {
            let all: Vec<&str> = verdict.left_out.iter().map(|why| why.message.as_str()).collect();
            Condition::no(RESOLVED, first.reason, all.join("; "))
        }
    }
}

/// An Event: whether it is a warning, its reason, its note.
pub type Note = (bool, String, String);

/// The Events that the change from `old` to `new` conditions is worth.
pub fn events(old: &[Condition], new: &[Condition]) -> Vec<Note> {
    let news = new.iter().filter(|condition| {
        let before = old.iter().find(|o| o.kind == condition.kind);
        let same = before.is_some_and(|o| {
            o.status == condition.status
                && o.reason == condition.reason
                && (o.status == "True" || o.message == condition.message)
        });
        // What is on its way, and what is as it should be from the start, needs no Event.
        let quiet = matches!(condition.reason.as_str(), "TakingOver" | "Pending" | "Calm")
            || (condition.kind == RESOLVED && condition.status == "True");
        !same && !quiet
    });
    news.map(|condition| {
        let warning = condition.reason != ACTIVE;
        (warning, condition.reason.clone(), condition.message.clone())
    })
    .collect()
}
