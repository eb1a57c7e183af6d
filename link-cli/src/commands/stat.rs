//! `stat`: what crossed the gateways for split Services within the last minute.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    observe::split_stats,
    output::{self, Column, Form},
};
use clap::{Args, Subcommand};
use kube::api::ListParams;
use linkspan_core::api::{
    split_report::{BackendReport, Window},
    traffic_split::{TrafficSplit, TrafficSplitSpec, VERSIONS},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// How often `--watch` looks.
const LOOK: Duration = Duration::from_secs(2);

/// Flags of `stat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli stat trafficsplit
  link-cli -n shop stat svc -o json")]
pub struct StatArgs {
    /// What is shown
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show each backend of each TrafficSplit: weight, success, requests per second, latency
    #[command(after_help = "\
Examples:
  link-cli stat trafficsplit
  link-cli -n shop stat trafficsplit my-api-split -o wide --watch")]
    #[command(visible_aliases = ["trafficsplits", "ts"])]
    Trafficsplit(ShowArgs),
    /// Show each Service that gateways send requests of split Services to
    #[command(after_help = "\
Examples:
  link-cli stat svc
  link-cli -n shop stat svc -o json")]
    #[command(visible_aliases = ["services", "service"])]
    Svc(ShowArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Only this one
    name: Option<String>,
    /// Print again every two seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

/// One backend of one split, all ports and gateway pods together.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    namespace: String,
    name: String,
    apex: String,
    leaf: String,
    weight: String,
    effective: Option<f64>,
    alive: Option<bool>,
    window: Window,
}

/// A row as JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct JsonRow<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    apex: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    leaf: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    weight: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
    success: Option<f64>,
    rps: f64,
    latency_ms_p50: Option<f64>,
    latency_ms_p95: Option<f64>,
    latency_ms_p99: Option<f64>,
}

/// Runs `stat`.
///
/// # Errors
/// When splits or gateways cannot be asked, or there is none of the name.
pub async fn run(global: &Global, args: StatArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let (splits, show) = match &args.what {
        What::Trafficsplit(show) => (true, show),
        What::Svc(show) => (false, show),
    };
    let mut shown = String::new();
    loop {
        let mut rows = if splits { of_splits(&cluster).await? } else { of_services(&cluster).await? };
        let here = |row: &Row| global.namespace.as_deref().is_none_or(|n| n == row.namespace);
        rows.retain(|row| here(row) && show.name.as_deref().is_none_or(|name| name == row.name));
        if let (Some(name), true) = (&show.name, rows.is_empty()) {
            let kind = if splits { "TrafficSplit" } else { "Service of a TrafficSplit" };
            anyhow::bail!(
                "no {kind} {name} in context {}: `link-cli stat trafficsplit` lists them",
                cluster.context
            );
        }
        let text = render(&rows, splits, show.output);
        if text != shown {
            output::print(&text)?;
            shown = text;
        }
        if !show.watch {
            return Ok(Outcome::Well);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All splits there are, with what the gateways did for each backend. Those that do not hold are told on stderr.
async fn of_splits(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    let (splits, reports) = tokio::join!(list(cluster), split_stats::reports(cluster));
    let (splits, reports) = (splits?, reports?);
    if splits.is_empty() {
        output::note(&format!("there is no TrafficSplit in context {}", cluster.context));
    }
    for split in &splits {
        if let Some(trouble) = trouble(split) {
            output::note(&trouble);
        }
    }
    Ok(splits.iter().flat_map(|split| rows_of(split, &reports)).collect())
}

/// All splits, in the newest version that is served.
async fn list(cluster: &Cluster) -> anyhow::Result<Vec<TrafficSplit>> {
    use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
    for version in VERSIONS {
        let kind = GroupVersionKind::gvk("split.smi-spec.io", version, "TrafficSplit");
        let resource = ApiResource::from_gvk_with_plural(&kind, "trafficsplits");
        let api = kube::Api::<DynamicObject>::all_with(cluster.client.clone(), &resource);
        let found = cluster.list(&api, &ListParams::default(), "TrafficSplits").await?;
        if !found.is_empty() {
            return Ok(found.into_iter().filter_map(|o| o.try_parse().ok()).collect());
        }
    }
    Ok(vec![])
}

/// Why the split does not hold, as the controller says.
fn trouble(split: &TrafficSplit) -> Option<String> {
    let conditions = split.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let name = split.metadata.name.as_deref().unwrap_or_default();
    let wrong = conditions.iter().find(|c| {
        (matches!(c.kind.as_str(), "Active" | "BackendsResolved") && c.status == "False")
            || (c.kind == "SelectorContested" && c.status == "True")
    })?;
    Some(format!("{name}: {}: {}", wrong.reason, wrong.message))
}

fn rows_of(split: &TrafficSplit, reports: &[BackendReport]) -> Vec<Row> {
    let namespace = split.metadata.namespace.clone().unwrap_or_default();
    let name = split.metadata.name.clone().unwrap_or_default();
    let TrafficSplitSpec { service, backends, .. } = &split.spec;
    let row = |backend: &linkspan_core::api::traffic_split::Backend| {
        let of =
            |r: &&BackendReport| r.namespace == namespace && r.split == name && r.backend == backend.service;
        let found: Vec<&BackendReport> = reports.iter().filter(of).collect();
        let mut window = Window::default();
        found.iter().for_each(|report| window.add(&report.window));
        let some = !found.is_empty();
        let mean = found.iter().map(|r| r.effective).sum::<f64>() / found.len().max(1) as f64;
        Row {
            namespace: namespace.clone(),
            name: name.clone(),
            apex: service.clone(),
            leaf: backend.service.clone(),
            weight: backend.weight.to_string(),
            effective: some.then_some(mean),
            alive: some.then(|| found.iter().any(|r| r.alive)),
            window,
        }
    };
    backends.iter().map(row).collect()
}

/// All Services that gateways know as backends, of whatever split.
async fn of_services(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    let mut by_service: BTreeMap<(String, String), Row> = BTreeMap::new();
    for report in split_stats::reports(cluster).await? {
        let key = (report.namespace.clone(), report.backend.clone());
        let row = by_service.entry(key).or_insert_with(|| Row {
            namespace: report.namespace.clone(),
            name: report.backend.clone(),
            apex: String::new(),
            leaf: String::new(),
            weight: String::new(),
            effective: None,
            alive: Some(false),
            window: Window::default(),
        });
        row.alive = Some(row.alive == Some(true) || report.alive);
        row.window.add(&report.window);
    }
    Ok(by_service.into_values().collect())
}

fn render(rows: &[Row], splits: bool, form: Option<Form>) -> String {
    if form == Some(Form::Json) {
        return output::json(&rows.iter().map(json).collect::<Vec<_>>());
    }
    let wide = form == Some(Form::Wide);
    let left = |head| Column { head, width: 0, right: false };
    let right = |head| Column { head, width: 0, right: true };
    let mut columns = if splits {
        vec![left("NAME"), left("APEX"), left("LEAF"), right("WEIGHT")]
    } else {
        vec![left("NAME")]
    };
    columns.extend(["SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"].map(right));
    if wide {
        columns.insert(0, left("NAMESPACE"));
        columns.extend(splits.then(|| right("EFFECTIVE")));
        columns.push(left("ALIVE"));
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, splits, wide)).collect();
    output::table(&columns, &cells)
}

fn cells(row: &Row, splits: bool, wide: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let window = &row.window;
    let mut cells = vec![row.name.clone()];
    if splits {
        cells.extend([row.apex.clone(), row.leaf.clone(), row.weight.clone()]);
    }
    cells.push(or_dash(window.success_rate().map(|rate| format!("{:.2}%", rate * 100.0))));
    cells.push(or_dash(window.success_rate().map(|_| format!("{:.1}rps", window.per_second()))));
    cells.extend([0.5, 0.95, 0.99].map(|q| or_dash(window.latency_ms(q).map(|ms| format!("{ms:.0}ms")))));
    if wide {
        cells.insert(0, row.namespace.clone());
        if splits {
            cells.push(or_dash(row.effective.map(|share| format!("{:.0}%", share * 100.0))));
        }
        cells.push(or_dash(row.alive.map(|alive| if alive { "True" } else { "False" }.to_owned())));
    }
    cells
}

fn json(row: &Row) -> JsonRow<'_> {
    let window = &row.window;
    JsonRow {
        namespace: &row.namespace,
        name: &row.name,
        apex: &row.apex,
        leaf: &row.leaf,
        weight: &row.weight,
        effective_weight: row.effective,
        alive: row.alive,
        success: window.success_rate(),
        rps: window.per_second(),
        latency_ms_p50: window.latency_ms(0.5),
        latency_ms_p95: window.latency_ms(0.95),
        latency_ms_p99: window.latency_ms(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn split() -> TrafficSplit {
        from_value(json!({
            "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
            "metadata": {"name": "my-api-split", "namespace": "default"},
            "spec": {"service": "my-api", "backends": [
                {"service": "my-api", "weight": 80}, {"service": "my-api-cluster-west", "weight": "200m"}]},
            "status": {"conditions": [{"type": "Active", "status": "False", "reason": "NoReadyGateway", "message": "none"}]}
        }))
        .unwrap()
    }

    fn report(backend: &str, alive: bool, effective: f64, success: u64) -> BackendReport {
        let mut window = Window { success, seconds: 10.0, ..Window::default() };
        window.latency[0] = success;
        BackendReport {
            namespace: "default".to_owned(),
            split: "my-api-split".to_owned(),
            apex: "my-api".to_owned(),
            port: 8080,
            backend: backend.to_owned(),
            weight: 0,
            alive,
            effective,
            window,
        }
    }

    #[test]
    fn pods_and_ports_are_added_up_under_linkerds_heads() {
        let reports = [
            report("my-api", true, 1.0, 60),
            report("my-api", true, 1.0, 20),
            report("my-api-cluster-west", false, 0.0, 0),
        ];
        let rows = rows_of(&split(), &reports);
        let expected = "\
NAME          APEX    LEAF                 WEIGHT  SUCCESS     RPS  LATENCY_P50  LATENCY_P95  LATENCY_P99  
my-api-split  my-api  my-api                   80  100.00%  8.0rps          0ms          1ms          1ms  
my-api-split  my-api  my-api-cluster-west    200m        -       -            -            -            -  
";
        assert_eq!(render(&rows, true, None), expected);
        let wide = render(&rows, true, Some(Form::Wide));
        for word in ["EFFECTIVE", "100%", "0%", "True", "False", "NAMESPACE"] {
            assert!(wide.contains(word), "{word} in {wide}");
        }
        let read: Value = serde_json::from_str(&render(&rows, true, Some(Form::Json))).unwrap();
        assert_eq!(
            (&read[0]["success"], &read[0]["rps"], &read[1]["alive"]),
            (&json!(1.0), &json!(8.0), &json!(false))
        );
        assert_eq!(render(&[], true, Some(Form::Json)), "[]\n");
    }

    #[test]
    fn a_split_that_does_not_hold_says_why() {
        assert_eq!(trouble(&split()).as_deref(), Some("my-api-split: NoReadyGateway: none"));
    }
}
