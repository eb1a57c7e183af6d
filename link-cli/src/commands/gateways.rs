//! `gateways`: one row per link.

use crate::{
    app::Outcome,
    cli::{Global, duration},
    cluster::Cluster,
    observe::{health, mirrors},
    output::{self, Column, Form},
    progress::Progress,
};
use clap::Args;
use linkspan_core::api::{controller_report::LinkReport, reason::Reason};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Flags of `gateways`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east gateways
  link-cli --context east gateways --cluster-name west -o wide
  link-cli --context east gateways --watch
  link-cli --context east gateways -o json")]
pub struct GatewaysArgs {
    /// Only the gateway of this linked cluster
    #[arg(long, value_name = "NAME", value_parser = crate::cli::dns_label)]
    cluster_name: Option<String>,
    /// Longest wait for gateways that were not probed yet
    #[arg(short, long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// Print again whenever something changes, until interrupted
    #[arg(long)]
    watch: bool,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

/// One row, with the names of Linkerd's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    cluster_name: &'a str,
    alive: bool,
    number_of_services: usize,
    latency: u64,
    reason: Option<&'a str>,
    addresses: &'a [String],
    latency_percentiles: Option<[u64; 3]>,
    certificate_expires_at: Option<&'a str>,
}

/// Runs `gateways`.
///
/// # Errors
/// When Links or Services cannot be listed, or the named cluster is not linked.
pub async fn run(global: &Global, args: GatewaysArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let deadline = Instant::now() + args.wait;
    let mut progress = Progress::on_stderr();
    let mut shown = String::new();
    let mut looks = 0_u32;
    loop {
        let (links, counts) = tokio::join!(health::links(&cluster), mirrors::counts(&cluster));
        // Who may not list Services everywhere is told what the controller counts.
        let (mut links, counts) = (links?, counts.ok());
        looks += 1;
        if looks == 1 && links.is_empty() {
            progress.line(&format!(
                "no cluster is linked in context {}: `link-cli link --help` says how",
                cluster.context
            ));
        }
        if let Some(name) = &args.cluster_name {
            links.retain(|link| &link.name == name);
            anyhow::ensure!(
                !links.is_empty(),
                "no link {name} in context {}: `link-cli gateways` lists them",
                cluster.context
            );
        }
        let settled = links.iter().all(|link| link.alive.is_some()) || Instant::now() >= deadline;
        let text = render(&links, counts.as_ref(), args.output);
        if settled || args.watch {
            progress.end();
            if text != shown {
                output::print(&text)?;
                shown = text;
            }
        } else {
            let unknown: Vec<&str> =
                links.iter().filter(|link| link.alive.is_none()).map(|link| link.name.as_str()).collect();
            progress.waiting(&format!("the first probes of {}", unknown.join(", ")));
        }
        if settled && !args.watch {
            return Ok(Outcome::Well);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn render(links: &[LinkReport], counts: Option<&BTreeMap<String, usize>>, form: Option<Form>) -> String {
    let count = |link: &LinkReport| match counts {
        Some(counts) => counts.get(&link.name).copied().unwrap_or_default(),
        None => usize::try_from(link.mirrored_services).unwrap_or_default(),
    };
    if form == Some(Form::Json) {
        return output::json(&links.iter().map(|link| row(link, count(link))).collect::<Vec<_>>());
    }
    let column = |head, width, right| Column { head, width, right };
    let mut columns = vec![
        column("CLUSTER", 7, false),
        column("ALIVE", 5, false),
        column("NUM_SVC", 9, true),
        column("LATENCY", 11, true),
    ];
    if form == Some(Form::Wide) {
        columns.extend(["P50", "P95", "P99"].map(|head| column(head, 5, true)));
        columns.extend(["REASON", "ADDRESSES", "CERTIFICATE_UNTIL"].map(|head| column(head, 6, false)));
    }
    let rows: Vec<Vec<String>> =
        links.iter().map(|link| cells(link, count(link), form == Some(Form::Wide))).collect();
    output::table(&columns, &rows)
}

fn row(link: &LinkReport, services: usize) -> Row<'_> {
    let alive = is_alive(link);
    Row {
        cluster_name: &link.name,
        alive,
        number_of_services: services,
        latency: if alive { milliseconds(link.latency_ms.unwrap_or_default()) } else { 0 },
        reason: link.reason.map(Reason::as_str),
        addresses: &link.addresses,
        latency_percentiles: link.latency_percentiles_ms.filter(|_| alive).map(|all| all.map(milliseconds)),
        certificate_expires_at: link.certificate_expires_at.as_deref(),
    }
}

fn cells(link: &LinkReport, services: usize, wide: bool) -> Vec<String> {
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let alive = is_alive(link);
    let time = |ms: f64| format!("{}ms", milliseconds(ms));
    let mut cells = vec![
        link.name.clone(),
        if alive { "True" } else { "False" }.to_owned(),
        services.to_string(),
        or_dash(link.latency_ms.filter(|_| alive).map(time)),
    ];
    if wide {
        let percentiles = link.latency_percentiles_ms.filter(|_| alive);
        cells.extend((0..3).map(|i| or_dash(percentiles.map(|p| time(p[i])))));
        cells.push(or_dash(link.reason.map(|reason| reason.to_string())));
        cells.push(or_dash(Some(link.addresses.join(","))));
        cells.push(or_dash(link.certificate_expires_at.clone()));
    }
    cells
}

fn is_alive(link: &LinkReport) -> bool {
    link.alive == Some(true)
}

/// Whole milliseconds; less than one counts as one, so that a living gateway never shows none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn milliseconds(ms: f64) -> u64 {
    ms.clamp(1.0, 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Vec<LinkReport> {
        vec![
            LinkReport {
                name: "cluster-west".into(),
                alive: Some(true),
                latency_ms: Some(10.9),
                latency_percentiles_ms: Some([10.0, 12.0, 0.2]),
                addresses: vec!["172.18.0.100:4143".into()],
                certificate_expires_at: Some("2026-01-02T03:04:05Z".into()),
                ..LinkReport::default()
            },
            LinkReport {
                name: "north".into(),
                alive: Some(false),
                reason: Some(Reason::Refused),
                ..LinkReport::default()
            },
            LinkReport { name: "south".into(), ..LinkReport::default() },
        ]
    }

    #[test]
    fn the_table_is_linkerds() {
        let counts = BTreeMap::from([("cluster-west".to_owned(), 5)]);
        let expected = "\
CLUSTER       ALIVE    NUM_SVC      LATENCY  
cluster-west  True           5         10ms  
north         False          0            -  
south         False          0            -  
";
        assert_eq!(render(&links(), Some(&counts), None), expected);
        assert_eq!(render(&[], Some(&counts), None), "CLUSTER  ALIVE    NUM_SVC      LATENCY  \n");
    }

    #[test]
    fn wide_and_json_tell_more() {
        let counts = BTreeMap::new();
        let wide = render(&links(), Some(&counts), Some(Form::Wide));
        for word in ["172.18.0.100:4143", "refused", "12ms", "2026-01-02T03:04:05Z"] {
            assert!(wide.contains(word), "{word} in {wide}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&render(&links(), Some(&counts), Some(Form::Json))).unwrap();
        assert_eq!(json[0]["clusterName"], "cluster-west");
        assert_eq!((json[0]["alive"].as_bool(), json[0]["latency"].as_u64()), (Some(true), Some(10)));
        assert_eq!((json[1]["alive"].as_bool(), json[1]["reason"].as_str()), (Some(false), Some("refused")));
        assert_eq!(render(&[], Some(&counts), Some(Form::Json)), "[]\n");
    }

    #[test]
    fn without_the_right_to_count_services_the_controllers_count_is_shown() {
        let link = LinkReport { name: "west".into(), mirrored_services: 7, ..LinkReport::default() };
        assert!(render(&[link], None, None).contains("  7  "), "as the controller says");
    }

    #[test]
    fn a_quick_gateway_still_shows_a_latency() {
        assert_eq!(milliseconds(0.2), 1);
        assert_eq!(milliseconds(f64::INFINITY), 1_000_000_000);
    }
}
