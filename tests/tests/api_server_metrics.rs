//! The tables of metrics in the chart's documentation are what the programs say of themselves, and the alerts pass their
//! own tests.

use anyhow::{Context, ensure};
use linkspan_core::api::reason::Reason;
use linkspan_gateway::record::{Direction, FlowLabels, Metrics, Record};
use linkspan_tests::{Installation, Need, Program, eventually, have, http, metrics, tools};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{net::Ipv4Addr, time::Duration};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_documented_metrics_are_those_of_the_controller() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let localhost = Ipv4Addr::LOCALHOST;
    let mut cluster = Installation::new("metrics", localhost.into(), localhost).await.unwrap();
    cluster.start_controller().await.unwrap();
    let controller = cluster.controller().unwrap();
    let page = eventually(SOON, "the controller's metrics", async || {
        let log = controller.log();
        let address = log.split("admin=").nth(1).context("no admin address in the log")?;
        let address = address.split_whitespace().next().unwrap_or_default().to_owned();
        let page = http::get(&address, "/metrics").await?;
        ensure!(page.contains("# EOF"), "{page}");
        Ok(page)
    });
    metrics::hold_to("mirror controller", &metrics::described(&page.await)).unwrap();
}

/// A gateway describes only what has happened: so everything happens once.
#[tokio::test]
async fn the_documented_metrics_are_those_of_the_gateway() {
    let (counted, mut registry, mut page) = (Metrics::new(), Registry::default(), String::new());
    counted.register(&mut registry);
    let took = Duration::from_millis(1);
    for outcome in [Ok(took), Err(Reason::Timeout)] {
        counted.dialed("west", outcome);
        counted.probed("west", outcome);
        counted.shook_hands(outcome);
    }
    counted.connections("west", 1);
    counted.alive("west", true);
    counted.inbound_connections("east", 1);
    counted.beyond("flows");
    counted.ejected(1);
    let labels = FlowLabels::new(Direction::outbound, "west", &"web.shop:80".parse().unwrap());
    counted.denied(&labels, Reason::Timeout, "a pod", "no answer");
    Record::open(&counted, labels, "a pod".to_owned()).retried();
    encode(&mut page, &registry).unwrap();
    let described = metrics::described(&page);

    let source = include_str!("../../gateway/src/record/metrics.rs");
    let registered = source.split("registry.register").skip(1).filter(|text| !text.starts_with("_collector"));
    for name in registered.map(|text| text.split('"').nth(1).unwrap()) {
        let is_described = described
            .iter()
            .any(|m| m.name.strip_prefix(name).is_some_and(|unit| ["", "_seconds"].contains(&unit)));
        assert!(is_described, "{name} is registered: let it happen here");
    }
    let without: Vec<_> = described.iter().filter(|metric| metric.labels.is_none()).collect();
    assert!(without.is_empty(), "these have no sample: {without:?}");
    metrics::hold_to("gateway", &described).unwrap();
}

#[tokio::test]
async fn the_alerts_pass_their_own_tests() {
    if !have(&[Need::Tool("promtool")]) {
        return;
    }
    let alerts = tools::repository().join("charts/linkspan/alerts");
    for (command, file) in [("check", "linkspan.yaml"), ("test", "linkspan-test.yaml")] {
        let promtool = Program::new("promtool").args([command, "rules"]).arg(alerts.join(file));
        promtool.run(SOON).await.unwrap().success().unwrap();
    }
}
