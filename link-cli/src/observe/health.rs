//! How links are: what the controller's leader says, else what the Links' status says.

use crate::{cluster::Cluster, manifests::workloads::CONTROLLER_COMPONENT};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use linkspan_core::api::{
    condition::Condition,
    controller_report::{ControllerReport, LinkReport},
    labels::{ADMIN_PORT, COMPONENT},
    link::Link,
    reason::Reason,
};

/// All links by name, as well as they are known. A Link always has an entry.
///
/// # Errors
/// When the Links cannot be listed.
pub async fn links(cluster: &Cluster) -> anyhow::Result<Vec<LinkReport>> {
    let (links, report) = tokio::join!(list(cluster), leaders_report(cluster));
    Ok(merged(&links?, report.ok().flatten()))
}

/// The Links of the installation.
///
/// # Errors
/// When they cannot be listed.
pub async fn list(cluster: &Cluster) -> anyhow::Result<Vec<Link>> {
    cluster.list(&cluster.ours::<Link>(), &ListParams::default(), "Links").await
}

/// What the controller's leader says, asked through the API server; none where no pod is the leader.
///
/// # Errors
/// When the pods cannot be listed, or none answers.
pub async fn leaders_report(cluster: &Cluster) -> anyhow::Result<Option<ControllerReport>> {
    let params = ListParams::default().labels(&format!("{COMPONENT}={CONTROLLER_COMPONENT}"));
    let pods = cluster.list(&cluster.ours::<Pod>(), &params, "pods").await?;
    let mut failed = None;
    for pod in pods {
        let running = pod.status.and_then(|status| status.phase).as_deref() == Some("Running");
        let Some(name) = pod.metadata.name.filter(|_| running) else { continue };
        match report_of(cluster, &name).await {
            Ok(report) if report.leader => return Ok(Some(report)),
            Ok(_) => {}
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(None), Err)
}

async fn report_of(cluster: &Cluster, pod: &str) -> anyhow::Result<ControllerReport> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:{ADMIN_PORT}/proxy/links", cluster.namespace);
    let request = http::Request::get(path).body(vec![])?;
    let doing = format!("asking pod {pod} for its links");
    cluster.client.request(request).await.map_err(|e| cluster.explain(&doing, &e))
}

/// One entry per Link, by name: the report's where it has one, else the Link's status.
fn merged(links: &[Link], report: Option<ControllerReport>) -> Vec<LinkReport> {
    let mut told = report.map(|report| report.links).unwrap_or_default();
    let mut all: Vec<LinkReport> = links
        .iter()
        .map(|link| {
            let name = link.metadata.name.as_deref().unwrap_or_default();
            match told.iter().position(|entry| entry.name == name) {
                Some(i) => told.swap_remove(i),
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
        (None, None) => format!("its gateway was not probed yet{detail}"),
        (_, Some(reason)) => format!("{reason}{detail}: {}", reason.advice()),
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
        let all = merged(&[link("b", vec![]), link("a", vec![dead])], Some(report));
        let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "sorted, and none that is no Link");
        assert_eq!((all[0].alive, all[0].reason), (Some(false), Some(Reason::TlsTrust)));
        assert_eq!(all[1].latency_ms, Some(7.0));
        assert!(why(&all[0]).starts_with("tls-trust (unknown issuer): "), "{}", why(&all[0]));
    }

    #[test]
    fn nothing_is_known_before_the_first_verdict() {
        let all = merged(&[link("a", vec![Condition::unknown("GatewayAlive", "Pending", "")])], None);
        assert_eq!((all[0].alive, all[0].reason), (None, None));
        assert!(why(&all[0]).contains("not probed yet"));
    }
}
