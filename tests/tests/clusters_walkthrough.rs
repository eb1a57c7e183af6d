//! The README's walkthrough on the real clusters, command by command, with what it promises checked between them.
//!
//! One test, because an installation is one per cluster and the walkthrough is one story. It proves, in this order:
//! install and check; a link in both directions; a live gateway within 15 s; the mirror; requests from a plain pod on
//! every node; every remote pod reached; redis and a server-first protocol through mirrors; un-export removes the
//! mirror and cuts open connections within 5 s; what is not exported is not reached; unlink and uninstall leave both
//! clusters as they were.

mod clusters_walkthrough {
    pub(crate) mod listing;
    pub(crate) mod readme;
    pub(crate) mod workloads;
}

use anyhow::{Context, Result, ensure};
use clusters_walkthrough::{
    listing::{self, Listing},
    readme,
    workloads::{self, Client},
};
use linkspan_tests::{
    Need,
    clusters::{self, Clusters},
    eventually, have, tools,
};
use std::{collections::BTreeSet, fs, time::Duration};
use tokio::time::Instant;

/// Time one command of the README may take; the longest waits for rollouts.
const COMMAND: Duration = Duration::from_secs(240);
/// Several times the bars (15 s for a live gateway, seconds for a mirror): the machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within this, open connections to a Service that is no longer exported must end.
const CUT: Duration = Duration::from_secs(5);
/// The file that the walkthrough writes into the folder where it is run.
const LINK_FILE: &str = "cluster-west-link.yaml";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_walkthrough_works_as_written() -> Result<()> {
    if !have(&[Need::Clusters, Need::Tool("kubectl")]) {
        return Ok(());
    }
    let clusters = Clusters::connect().await?;
    remove_earlier_installation().await?;
    let before = [listing::of(&clusters.east).await?, listing::of(&clusters.west).await?];

    let mut steps = readme::steps(&fs::read_to_string(tools::repository().join("README.md"))?)?;
    steps.run_until("install | kubectl --context cluster-west").await?;
    steps.run_until("cluster-west check").await?;
    let linked = Instant::now();
    steps.run_until("apply -f cluster-west-link.yaml").await?;
    live(&clusters, "cluster-east", "cluster-west").await;
    println!(
        "FIGURE: link applied -> gateway alive with a latency: {:.1} s (bar 15 s)",
        linked.elapsed().as_secs_f64()
    );
    steps.run_until("cluster-east check").await?;

    steps.run_until("label svc/my-api mirror.linkerd.io/exported=true").await?;
    let exported = Instant::now();
    eventually(PATIENCE, "the mirror of my-api to take traffic", async || {
        let slices = clusters.east.kubectl([
            "get",
            "endpointslices",
            "-n",
            "default",
            "-l",
            "kubernetes.io/service-name=my-api-cluster-west",
            "-o",
            "jsonpath={.items[*].endpoints[*].conditions.ready}",
        ]);
        let ready = slices.run(COMMAND).await?.success()?;
        ensure!(ready.contains("true"), "ready: {ready:?}");
        Ok(())
    })
    .await;
    println!("FIGURE: exported -> mirror's slice ready: {:.1} s", exported.elapsed().as_secs_f64());

    let gateways = steps.run_until("cluster-east gateways").await?;
    let row = gateways.lines().find(|l| l.starts_with("cluster-west")).context("no row for cluster-west")?;
    ensure!(row.contains("True") && row.contains("ms"), "{gateways}");
    ensure!(gateways.starts_with("CLUSTER       ALIVE    NUM_SVC      LATENCY  "), "{gateways:?}");
    let mirrors = steps.run_until("mirror.linkerd.io/mirrored=true").await?;
    ensure!(mirrors.contains("my-api-cluster-west"), "{mirrors}");
    let mut answer = steps.run_until("/health").await?;
    for _ in 0..2 {
        // `kubectl run --rm -i` sometimes attaches only after a short command has written.
        if !answer.contains("ok\n") {
            answer = steps.again().await?;
        }
    }
    ensure!(answer.contains("ok\n"), "curl answered {answer:?}");

    depth(&clusters).await?;

    let client = Client::start(&clusters.east, "default", "walkthrough-client").await?;
    let held = client.held_connection("my-api-cluster-west", 8080).await?;
    steps.run_until("mirror.linkerd.io/exported-").await?;
    let unexported = Instant::now();
    held.ended(PATIENCE).await;
    let cut = unexported.elapsed();
    println!("FIGURE: un-exported -> open connection ended: {:.1} s (bar 5 s)", cut.as_secs_f64());
    ensure!(cut <= CUT, "an open connection lived {cut:?} after un-export");
    client.remove().await?;

    steps.run_until("uninstall | kubectl --context cluster-west").await?;
    ensure!(steps.rest().is_empty(), "commands of the README that were not run: {:?}", steps.rest());
    fs::remove_file(tools::repository().join(LINK_FILE))?;
    for (cluster, before) in [&clusters.east, &clusters.west].into_iter().zip(&before) {
        same_as_before(cluster, before).await;
    }
    Ok(())
}

/// What the walkthrough promises beyond its commands: every node, every pod, real protocols, both directions, and
/// nothing that is not exported.
async fn depth(clusters: &Clusters) -> Result<()> {
    let namespace = clusters.namespace("walkthrough").await?;
    let ns = namespace.name();
    let url = "http://my-api-cluster-west.default.svc.cluster.local:8080";

    for client in Client::on_every_node(&clusters.east, ns).await? {
        let answer = client.exec(&format!("curl -sS --max-time 10 {url}/health")).await?;
        ensure!(answer == "ok\n", "from {}: {answer:?}", client.pod());
    }

    let client = Client::start(&clusters.east, ns, "client").await?;
    let script = format!("for i in $(seq 200); do curl -sS --max-time 10 {url}/hostname || exit 1; done");
    let answers = client.exec(&script).await?;
    let seen: BTreeSet<&str> = answers.lines().collect();
    let pods = workloads::pods(&clusters.west, "default", "app=my-api").await?;
    ensure!(answers.lines().count() == 200, "{} answers to 200 requests", answers.lines().count());
    ensure!(seen == pods.iter().map(String::as_str).collect(), "answers from {seen:?}, pods are {pods:?}");

    clusters.west.apply(&workloads::servers(ns)).await?;
    for (service, command, wanted) in [
        ("redis", "redis-cli -h redis-cluster-west -p 6379 set greeting hello", "OK"),
        ("redis", "redis-cli -h redis-cluster-west -p 6379 get greeting", "hello"),
        ("mail", "sh -c 'sleep 1; echo QUIT' | timeout 10 nc mail-cluster-west 2525", "220 "),
        ("web", "curl -sS --max-time 10 http://web-cluster-west:8080/", "Served by nginx"),
    ] {
        eventually(PATIENCE, format!("{service} to answer through its mirror"), async || {
            let answer = client.exec(command).await?;
            ensure!(answer.contains(wanted), "{answer:?}");
            Ok(())
        })
        .await;
    }
    let refused = client.exec("curl -sS --max-time 10 http://hidden-cluster-west:8080/").await;
    ensure!(refused.is_err(), "a Service that is not exported was reached");
    let hidden = clusters.east.kubectl(["get", "svc", "-n", ns, "hidden-cluster-west"]).run(COMMAND).await?;
    ensure!(!hidden.status.success(), "a Service that is not exported has a mirror");

    both_ways(clusters, ns).await
}

/// East's link in west, from two contexts by one command, and a request along it.
async fn both_ways(clusters: &Clusters, ns: &str) -> Result<()> {
    let link = ["link", "--to", "cluster-west", "--cluster-name", "cluster-east", "--wait"];
    clusters.east.link_cli(link)?.run(COMMAND).await?.success()?;
    live(clusters, "cluster-west", "cluster-east").await;
    clusters.east.apply(&workloads::servers(ns)).await?;
    let client = Client::start(&clusters.west, ns, "client").await?;
    eventually(PATIENCE, "east's web server to answer in west", async || {
        let answer = client.exec("curl -sS --max-time 10 http://web-cluster-east:8080/").await?;
        ensure!(answer.contains("Served by nginx"), "{answer:?}");
        Ok(())
    })
    .await;
    let unlink = "link-cli --context cluster-west unlink --cluster-name cluster-east \
                  | kubectl --context cluster-west delete -f -";
    clusters::shell(unlink, COMMAND).await?.success()?;
    Ok(())
}

/// Waits until `context` sees the gateway of `link` alive, with a latency.
async fn live(clusters: &Clusters, context: &str, link: &str) {
    let cluster = [&clusters.east, &clusters.west].into_iter().find(|c| c.context == context);
    eventually(PATIENCE, format!("{context} to see {link} alive"), async || {
        let cluster = cluster.context("no such cluster")?;
        let table = cluster.link_cli(["gateways"])?.run(COMMAND).await?.success()?;
        let row = table.lines().find(|l| l.starts_with(link)).unwrap_or_default();
        ensure!(row.contains("True") && row.contains("ms"), "{table}");
        Ok(())
    })
    .await;
}

/// An installation that a demo or a failed run has left would not be the walkthrough's.
async fn remove_earlier_installation() -> Result<()> {
    for context in clusters::EAST_WEST {
        let script =
            format!("kubectl --context {context} delete -f tests/demo/my-api.yaml --ignore-not-found --wait");
        clusters::shell(&in_repository(&script), COMMAND).await?.success()?;
    }
    clusters::system::remove().await?;
    for context in clusters::EAST_WEST {
        eventually(
            PATIENCE * 2,
            format!("namespaces of earlier tests to be gone from {context}"),
            async || {
                let phases = ["get", "namespaces", "-o", "jsonpath={.items[*].status.phase}"];
                let phases = clusters::kubectl(context, phases).run(COMMAND).await?.success()?;
                ensure!(!phases.contains("Terminating"), "{phases}");
                Ok(())
            },
        )
        .await;
    }
    Ok(())
}

/// `script`, run in the repository's root, as the README has it.
fn in_repository(script: &str) -> String {
    format!("cd '{}'; {script}", tools::repository().display())
}

async fn same_as_before(cluster: &clusters::Cluster, before: &Listing) {
    eventually(PATIENCE * 2, format!("{} to be as it was before", cluster.context), async || {
        let now = listing::of(cluster).await?;
        let left: Vec<_> = now.difference(before).collect();
        let gone: Vec<_> = before.difference(&now).collect();
        ensure!(left.is_empty() && gone.is_empty(), "left behind: {left:?}; gone: {gone:?}");
        Ok(())
    })
    .await;
}
