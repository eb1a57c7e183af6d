//! `services`: the Services that links brought, and those that they could not bring, with the reason.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    observe::{
        health,
        mirrors::{self, Mirror},
    },
    output::{self, Column, Form},
};
use clap::Args;
use linkspan_core::api::link::Link;
use serde_json::json;

/// Flags of `services`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east services
  link-cli --context east -n shop services --cluster-name west -o wide
  link-cli --context east services -o json")]
pub struct ServicesArgs {
    /// Only those of this linked cluster
    #[arg(long, value_name = "NAME", value_parser = crate::cli::dns_label)]
    cluster_name: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

/// Runs `services`.
///
/// # Errors
/// When Services cannot be listed.
pub async fn run(global: &Global, args: ServicesArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let (link, namespace) = (args.cluster_name.as_deref(), global.namespace.as_deref());
    let mirrors = mirrors::all(&cluster, link, namespace).await?;
    let links = health::list(&cluster).await.unwrap_or_else(|e| {
        output::note(&format!("Services that could not be mirrored are not shown: {e:#}"));
        vec![]
    });
    output::print(&render(&rows(mirrors, &links, link, namespace), args.output))?;
    Ok(Outcome::Well)
}

/// One Service of a link: its mirror, and why it is not there, or not whole.
struct Row {
    mirror: Mirror,
    stands: bool,
    /// Reason and message of the Link's status.
    trouble: Option<(String, String)>,
}

/// The mirrors with what the Links' status says of them, then what it says of Services without one. A Link's status
/// lists at most 100.
fn rows(mirrors: Vec<Mirror>, links: &[Link], link: Option<&str>, namespace: Option<&str>) -> Vec<Row> {
    let mut rows: Vec<Row> =
        mirrors.into_iter().map(|mirror| Row { mirror, stands: true, trouble: None }).collect();
    for of in links {
        let name = of.metadata.name.clone().unwrap_or_default();
        if link.is_some_and(|wanted| wanted != name) {
            continue;
        }
        for service in of.status.iter().flat_map(|status| &status.mirror_services) {
            let remote = &service.remote_ref;
            if namespace.is_some_and(|wanted| wanted != remote.namespace) {
                continue;
            }
            let trouble = service.conditions.first().map(|c| (c.reason.clone(), c.message.clone()));
            let local = format!("{}-{name}", remote.name);
            let mirror = rows.iter_mut().find(|row| {
                (row.mirror.namespace.as_str(), row.mirror.name.as_str(), row.mirror.link.as_str())
                    == (remote.namespace.as_str(), local.as_str(), name.as_str())
            });
            if let Some(row) = mirror {
                row.trouble = trouble;
                continue;
            }
            let (namespace, link) = (remote.namespace.clone(), name.clone());
            let mirror = Mirror { namespace, name: local, link, ..Mirror::default() };
            rows.push(Row { mirror, stands: false, trouble });
        }
    }
    rows
}

fn render(rows: &[Row], form: Option<Form>) -> String {
    if form == Some(Form::Json) {
        let row = |Row { mirror, stands, trouble }: &Row| {
            json!({
                "namespace": mirror.namespace,
                "name": mirror.name,
                "clusterName": mirror.link,
                "mirrored": stands,
                "reason": trouble.as_ref().map(|(reason, _)| reason),
                "message": trouble.as_ref().map(|(_, message)| message),
                "target": mirror.target,
                "ports": mirror.ports,
                "readyEndpoints": mirror.ready,
                "endpoints": mirror.endpoints,
            })
        };
        return output::json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let column = |head, right| Column { head, width: 0, right };
    let mut columns = vec![
        column("NAMESPACE", false),
        column("SERVICE", false),
        column("CLUSTER", false),
        column("READY", true),
        column("STATUS", false),
    ];
    if form == Some(Form::Wide) {
        columns.extend([column("PORTS", false), column("TARGET", false), column("MESSAGE", false)]);
    }
    let cells = |Row { mirror, stands, trouble }: &Row| {
        let ready = if *stands { format!("{}/{}", mirror.ready, mirror.endpoints) } else { "-".to_owned() };
        let (reason, message) = trouble.clone().unwrap_or_else(|| ("Mirrored".to_owned(), String::new()));
        let mut cells =
            vec![mirror.namespace.clone(), mirror.name.clone(), mirror.link.clone(), ready, reason];
        if form == Some(Form::Wide) {
            let ports: Vec<String> = mirror.ports.iter().map(i32::to_string).collect();
            cells.extend([ports.join(","), mirror.target.clone(), message]);
        }
        cells
    };
    output::table(&columns, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkspan_core::api::{
        condition::Condition,
        link::{LinkSpec, LinkStatus, ObjectRef, ServiceStatus},
    };

    fn mirror() -> Mirror {
        Mirror {
            namespace: "shop".into(),
            name: "api-west".into(),
            link: "west".into(),
            target: "api.shop.svc.cluster.local".into(),
            ports: vec![80, 443],
            ready: 1,
            endpoints: 2,
            gateway_ports: vec![],
        }
    }

    /// Link `west`, which says this of these Services of namespace `shop`.
    fn link(services: &[(&str, &str)]) -> Link {
        let failing = |(name, reason): &(&str, &str)| ServiceStatus {
            remote_ref: ObjectRef { name: (*name).into(), namespace: "shop".into(), ..ObjectRef::default() },
            conditions: vec![Condition::no("Mirrored", reason, "a sentence")],
            ..ServiceStatus::default()
        };
        let mut link = Link::new("west", LinkSpec::default());
        let mirror_services = services.iter().map(failing).collect();
        link.status = Some(LinkStatus { mirror_services, ..LinkStatus::default() });
        link
    }

    #[test]
    fn each_mirror_has_a_row() {
        let rows = rows(vec![mirror()], &[], None, None);
        assert_eq!(
            render(&rows, Some(Form::Wide)),
            "NAMESPACE  SERVICE   CLUSTER  READY  STATUS    PORTS   TARGET                      MESSAGE  \n\
             shop       api-west  west       1/2  Mirrored  80,443  api.shop.svc.cluster.local           \n"
        );
        assert!(render(&rows, Some(Form::Json)).contains("\"readyEndpoints\": 1"));
    }

    #[test]
    fn what_could_not_be_mirrored_is_told_with_its_reason() {
        let link = link(&[("api", "PortsLeftOut"), ("db", "Conflict")]);
        let all = rows(vec![mirror()], std::slice::from_ref(&link), None, None);
        assert_eq!(
            render(&all, None),
            "NAMESPACE  SERVICE   CLUSTER  READY  STATUS        \n\
             shop       api-west  west       1/2  PortsLeftOut  \n\
             shop       db-west   west         -  Conflict      \n"
        );
        assert!(rows(vec![], std::slice::from_ref(&link), Some("east"), None).is_empty(), "another link's");
        assert!(rows(vec![], &[link], None, Some("default")).is_empty(), "another namespace's");
    }
}
