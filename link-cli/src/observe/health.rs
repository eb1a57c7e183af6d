//! How links are: what the controller's leader says, else what the Links' status says.

use crate::{
    cluster::Cluster,
    manifests::workloads::CONTROLLER_COMPONENT,
    observe::pods::{self, Asked},
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use linkspan_core::{
    api::{
        condition::Condition,
        controller_report::{ControllerReport, LinkReport},
        labels::CONTROLLER,
        link::Link,
        reason::Reason,
    },
    process::clock::Clock,
};

/// This machine's clock may differ so much from the holder's of a Lease.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(15);

/// How the links are, and who says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// All links by name. A Link always has an entry.
    pub links: Vec<LinkReport>,
    /// Who says so.
    pub source: Source,
}

/// Who says how the links are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The controller that leads: its pod, and the time by its clock.
    Leader {
        /// Name of the pod.
        pod: String,
        /// Its time (RFC 3339).
        now: Option<String>,
    },
    /// No pod of the controller leads, so that nobody knows how the links are now.
    NobodyLeads,
    /// The user may not ask pods: the Links' status has to do.
    #[default]
    Status,
}

/// What was to be learned from the controller's pods.
enum Told {
    Leader(String, ControllerReport),
    NobodyLeads,
    MayNotAsk,
}

/// All links by name, as well as they are known, and by whom.
///
/// # Errors
/// When the Links cannot be listed.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Health> {
    let (links, told) = tokio::join!(list(cluster), ask_leader(cluster));
    let links = links?;
    let source = match &told {
        Told::Leader(pod, report) => Source::Leader { pod: pod.clone(), now: report.now.clone() },
        Told::NobodyLeads => Source::NobodyLeads,
        Told::MayNotAsk => Source::Status,
    };
    Ok(Health { links: merged(&links, told), source })
}

/// All links by name, as well as they are known. A Link always has an entry.
///
/// # Errors
/// When the Links cannot be listed.
pub async fn links(cluster: &Cluster) -> anyhow::Result<Vec<LinkReport>> {
    Ok(look(cluster).await?.links)
}

/// The Links of the installation.
///
/// # Errors
/// When they cannot be listed.
pub async fn list(cluster: &Cluster) -> anyhow::Result<Vec<Link>> {
    cluster.list(&cluster.ours::<Link>(), &ListParams::default(), "Links").await
}

/// Asks the controller's pods, through the API server, until one leads.
async fn ask_leader(cluster: &Cluster) -> Told {
    let Ok(pods) = pods::list(cluster, CONTROLLER_COMPONENT).await else { return Told::MayNotAsk };
    let running: Vec<String> = pods.into_iter().filter(|pod| pod.running).map(|pod| pod.name).collect();
    // All at once: each may keep us waiting.
    let answers = join_all(running.iter().map(|pod| pods::ask(cluster, pod, "/links"))).await;
    for (pod, answer) in running.into_iter().zip(answers) {
        match answer {
            Asked::NotAllowed => return Told::MayNotAsk,
            Asked::Answer(text) => match serde_json::from_str::<ControllerReport>(&text) {
                Ok(report) if report.leader => return Told::Leader(pod, report),
                // A standby, or something else at this port: another pod may lead.
                Ok(_) | Err(_) => {}
            },
            Asked::Silent(_) => {}
        }
    }
    // Where a network policy keeps the API server from the pods, the Lease still tells.
    if lease_is_held(cluster, Clock::system().now()).await { Told::MayNotAsk } else { Told::NobodyLeads }
}

/// Whether some controller holds the Lease, as far as clocks can be trusted.
async fn lease_is_held(cluster: &Cluster, now: Timestamp) -> bool {
    let lease = cluster.get(&cluster.ours::<Lease>(), CONTROLLER, "Lease").await;
    lease.ok().flatten().is_some_and(|lease| is_held(&lease, now))
}

fn is_held(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let holder = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
    let lives = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or_default()));
    let renewed = spec.renew_time.as_ref().map(|time| time.0);
    holder && renewed.is_some_and(|renewed| now.duration_since(renewed) <= lives + CLOCKS_APART)
}

/// One entry per Link, by name: the leader's where there is one, else by the Link's status, of which, where nobody
/// leads, the gateway's life is not believed.
fn merged(links: &[Link], told: Told) -> Vec<LinkReport> {
    let nobody = matches!(told, Told::NobodyLeads);
    let mut entries = if let Told::Leader(_, report) = told { report.links } else { vec![] };
    let mut all: Vec<LinkReport> = links
        .iter()
        .map(|link| {
            let name = link.metadata.name.as_deref().unwrap_or_default();
            match entries.iter().position(|entry| entry.name == name) {
                Some(i) => entries.swap_remove(i),
                None if nobody => LinkReport {
                    alive: None,
                    reason: None,
                    detail: Some("no mirror controller leads".to_owned()),
                    ..from_status(name, link)
                },
                None => from_status(name, link),
            }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn from_status(name: &str, link: &Link) -> LinkReport {
    let status = link.status.clone().unwrap_or_default();
    let is = |kind: &str| match condition(&status.conditions, kind).map(|c| c.status.as_str()) {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    };
    let alive = condition(&status.conditions, "GatewayAlive");
    let counts = status.services.unwrap_or_default();
    LinkReport {
        name: name.to_owned(),
        alive: is("GatewayAlive"),
        reason: alive.filter(|c| c.status == "False").and_then(|c| reason(&c.reason)),
        detail: alive.map(|c| c.message.clone()).filter(|text| !text.is_empty()),
        latency_ms: status.latency_ms,
        addresses: status.gateway_addresses,
        connected: is("Connected"),
        synced: is("Synced"),
        mirrored_services: counts.mirrored,
        failing_services: counts.failing,
        certificate_expires_at: status.certificate_expires_at,
        token_expires_at: status.token_expires_at,
        ..LinkReport::default()
    }
}

/// The condition of one kind.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// A condition's reason as one of ours: `TlsTrust` and `tls-trust` are the same.
fn reason(text: &str) -> Option<Reason> {
    let plain = |text: &str| text.replace('-', "").to_lowercase();
    Reason::ALL.into_iter().find(|reason| plain(reason.as_str()) == plain(text))
}

/// Why a link is not alive, with what mends it.
pub fn why(link: &LinkReport) -> String {
    let detail = link.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    match (link.alive, link.reason) {
        (None, None) => format!("nobody knows yet whether its gateway is alive{detail}"),
        (_, Some(reason)) => format!("{reason}: {}", reason.with_advice(link.detail.as_deref())),
        (_, None) => format!("its gateway does not answer{detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkspan_core::api::link::{LinkSpec, LinkStatus};

    fn link(name: &str, conditions: Vec<Condition>) -> Link {
        let mut link = Link::new(name, LinkSpec::default());
        link.status = Some(LinkStatus { conditions, latency_ms: Some(3.0), ..LinkStatus::default() });
        link
    }

    #[test]
    fn a_link_without_report_is_told_by_its_status() {
        let dead = Condition::no("GatewayAlive", "TlsTrust", "unknown issuer");
        let report = ControllerReport {
            leader: true,
            now: None,
            links: vec![
                LinkReport {
                    name: "b".into(),
                    alive: Some(true),
                    latency_ms: Some(7.0),
                    ..LinkReport::default()
                },
                LinkReport { name: "gone".into(), ..LinkReport::default() },
            ],
        };
        let all = merged(&[link("b", vec![]), link("a", vec![dead])], Told::Leader("pod".into(), report));
        let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "sorted, and none that is no Link");
        assert_eq!((all[0].alive, all[0].reason), (Some(false), Some(Reason::TlsTrust)));
        assert_eq!(all[1].latency_ms, Some(7.0));
        assert!(why(&all[0]).starts_with("tls-trust: unknown issuer; "), "{}", why(&all[0]));
    }

    #[test]
    fn nothing_is_known_before_the_first_verdict() {
        let all =
            merged(&[link("a", vec![Condition::unknown("GatewayAlive", "Pending", "")])], Told::MayNotAsk);
        assert_eq!((all[0].alive, all[0].reason), (None, None));
        assert!(why(&all[0]).contains("nobody knows yet"));
    }

    #[test]
    fn a_lease_is_held_while_it_is_renewed() {
        let lease = |holder: &str| -> Lease {
            serde_json::from_value(serde_json::json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.000000Z"}})).unwrap()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(is_held(&lease("a"), at("2026-01-02T03:04:30Z")));
        assert!(!is_held(&lease("a"), at("2026-01-02T03:04:36Z")));
        assert!(!is_held(&lease(""), at("2026-01-02T03:04:05Z")));
    }

    #[test]
    fn a_status_that_nobody_keeps_is_not_believed() {
        let alive = || vec![link("a", vec![Condition::yes("GatewayAlive", "Alive", "")])];
        assert_eq!(merged(&alive(), Told::MayNotAsk)[0].alive, Some(true));
        let all = merged(&alive(), Told::NobodyLeads);
        assert_eq!(all[0].alive, None);
        assert!(why(&all[0]).contains("no mirror controller leads"), "{}", why(&all[0]));
    }
}
