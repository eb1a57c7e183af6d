//! `services`: the Services that links brought.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    observe::mirrors::{self, Mirror},
    output::{self, Column},
};
use clap::{Args, ValueEnum};
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

/// Forms of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A JSON array.
    Json,
    /// More columns.
    Wide,
}

/// Runs `services`.
///
/// # Errors
/// When Services cannot be listed.
pub async fn run(global: &Global, args: ServicesArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let mirrors = mirrors::all(&cluster, args.cluster_name.as_deref(), global.namespace.as_deref()).await?;
    output::print(&render(&mirrors, args.output))?;
    Ok(Outcome::Well)
}

fn render(mirrors: &[Mirror], form: Option<Form>) -> String {
    if form == Some(Form::Json) {
        let row = |mirror: &Mirror| {
            json!({
                "namespace": mirror.namespace,
                "name": mirror.name,
                "clusterName": mirror.link,
                "target": mirror.target,
                "ports": mirror.ports,
                "readyEndpoints": mirror.ready,
                "endpoints": mirror.endpoints,
            })
        };
        return output::json(&mirrors.iter().map(row).collect::<Vec<_>>());
    }
    let column = |head, right| Column { head, width: 0, right };
    let mut columns = vec![
        column("NAMESPACE", false),
        column("SERVICE", false),
        column("CLUSTER", false),
        column("READY", true),
    ];
    if form == Some(Form::Wide) {
        columns.extend([column("PORTS", false), column("TARGET", false)]);
    }
    let rows: Vec<Vec<String>> = mirrors
        .iter()
        .map(|mirror| {
            let ready = format!("{}/{}", mirror.ready, mirror.endpoints);
            let mut cells = vec![mirror.namespace.clone(), mirror.name.clone(), mirror.link.clone(), ready];
            if form == Some(Form::Wide) {
                let ports: Vec<String> = mirror.ports.iter().map(i32::to_string).collect();
                cells.extend([ports.join(","), mirror.target.clone()]);
            }
            cells
        })
        .collect();
    output::table(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mirror_has_a_row() {
        let mirror = Mirror {
            namespace: "shop".into(),
            name: "api-west".into(),
            link: "west".into(),
            target: "api.shop.svc.cluster.local".into(),
            ports: vec![80, 443],
            ready: 1,
            endpoints: 2,
            gateway_ports: vec![],
        };
        let table = render(std::slice::from_ref(&mirror), Some(Form::Wide));
        assert_eq!(
            table,
            "NAMESPACE  SERVICE   CLUSTER  READY  PORTS   TARGET                      \n\
             shop       api-west  west       1/2  80,443  api.shop.svc.cluster.local  \n"
        );
        assert!(render(&[mirror], Some(Form::Json)).contains("\"readyEndpoints\": 1"));
    }
}
