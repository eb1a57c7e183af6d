//! The table of the controller's metrics in the chart's documentation is what the program says of itself, and the
//! alerts pass their own tests. (Gateways describe only what has happened: their table is held to the clusters.)

use anyhow::{Context, ensure};
use linkspan_tests::{Installation, Need, Program, eventually, have, http, metrics, tools};
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
