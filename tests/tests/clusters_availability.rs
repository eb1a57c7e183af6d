//! What clients see while parts of Linkspan, or the machines under it, are restarted, killed and cut off.
//!
//! Eight client pods in east ask servers in west through a mirror, half of them over kept connections and half over a
//! new one for each request, 560 requests a second in all; two more hold connections for good, and two ask once a second
//! to see how soon an error is told. One event follows the other; each is judged by its own bar, and the test fails at the end if one was missed. What clients and servers
//! counted is compared.
//!
//! It takes some 25 minutes, so it runs only where `LINKSPAN_AVAILABILITY` says `all`, or names rows, e.g.
//! `rollouts,kills`. `LINKSPAN_PREVIOUS_CHARTS` names the charts of the version before, whose images the nodes have under
//! tag `previous`.

mod clusters_availability {
    pub(crate) mod events;
    pub(crate) mod judge;
    pub(crate) mod load;
}

use anyhow::{Context, Result, ensure};
use clusters_availability::{
    events::{self, gateways, pods, scale},
    judge::{Row, Seen},
    load::{Load, now},
};
use linkspan_core::api::labels::{CONTROLLER, GATEWAY};
use linkspan_tests::{
    Need,
    clusters::{
        COMMAND, Cluster, Clusters,
        system::{self, System},
    },
    eventually, have, needs, tools,
};
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// Two gateways and two controllers, kept apart.
const VALUES: [&str; 2] = ["ha=true", "gateway.replicas=2"];
/// Requests a second that the load must at least have made.
const RATE: u64 = 500;
/// Time flows have to end by themselves when their gateway leaves, in milliseconds.
const DRAIN: i64 = 60_000;
/// Clients are watched for this long after an event.
const AFTER: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(60);

struct Bench {
    clusters: Clusters,
    load: Load,
    rows: Vec<Row>,
    wanted: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_notice_nothing_or_little() -> Result<()> {
    if !have(&[Need::Clusters, Need::Tool("kubectl"), Need::Tool("helm"), Need::Tool("docker")]) {
        return Ok(());
    }
    let Ok(wanted) = std::env::var("LINKSPAN_AVAILABILITY") else {
        needs::skip(
            "clients_notice_nothing_or_little",
            "it takes 25 minutes: make test-availability runs it",
        );
        return Ok(());
    };
    let clusters = Clusters::connect().await?;
    let charts = tools::repository().join("charts");
    let system = System::install(&clusters, &charts, &VALUES).await?;
    let namespace = clusters.namespace("availability").await?;
    system::link_west_into_east(&clusters).await?;
    let load = Load::start(&clusters, namespace.name()).await?;
    let mut bench = Bench { clusters, load, rows: vec![], wanted };

    if bench.wants("rollouts") {
        bench.rollouts().await?;
    }
    if bench.wants("upgrade") {
        bench.upgrade(&system, &charts).await?;
    }
    if bench.wants("kills") {
        bench.kills().await?;
    }
    if bench.wants("empty") {
        bench.no_gateways_in_west().await?;
    }
    if bench.wants("leaderless") {
        bench.no_controllers().await?;
    }
    if bench.wants("paused") {
        bench.paused_api_server().await?;
    }
    if bench.wants("counts") {
        bench.counts().await?;
    }
    if bench.wants("backend") {
        bench.backend_killed().await?;
    }
    if bench.wants("nodes") {
        bench.nodes_lost().await?;
    }
    let missed = bench.rows.iter().filter(|row| !row.missed.is_empty());
    let missed: Vec<String> =
        missed.map(|row| format!("{}: {} ({})", row.event, row.missed.join("; "), row.seen)).collect();
    // A panic, so that logs and objects are kept.
    assert!(
        missed.is_empty(),
        "{} of {} bars were missed:\n{}",
        missed.len(),
        bench.rows.len(),
        missed.join("\n")
    );
    Ok(())
}

fn previous_charts() -> Option<PathBuf> {
    std::env::var_os("LINKSPAN_PREVIOUS_CHARTS").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Bench {
    fn wants(&self, row: &str) -> bool {
        self.wanted.split(',').any(|name| name == row || name == "all")
    }

    /// What clients saw since `since`, after a while in which it settles.
    async fn seen(&self, since: i64) -> Result<Seen> {
        self.seen_without(since, "").await
    }

    /// [`Bench::seen`] by clients that are not on the node `lost`.
    async fn seen_without(&self, since: i64, lost: &str) -> Result<Seen> {
        sleep(AFTER).await;
        let until = now();
        let reports = self.load.reports(since, |client| client.node != lost).await?;
        Ok(Seen { since, milliseconds: until - since, reports })
    }

    fn judge(&mut self, event: &str, seen: String, missed: Vec<String>) {
        let verdict =
            if missed.is_empty() { "met".to_owned() } else { format!("MISSED: {}", missed.join("; ")) };
        println!("FIGURE: {event}: {seen}: {verdict}");
        self.rows.push(Row { event: event.to_owned(), seen, missed });
    }

    /// Nothing failed, nothing was cut before its drain, and the load was there.
    fn judge_unnoticed(&mut self, event: &str, since: i64, seen: &Seen) {
        let missed = [seen.none_failed(), seen.no_cut_before(since, DRAIN), seen.enough(RATE)].concat();
        self.judge(event, seen.text(), missed);
    }

    async fn rollouts(&mut self) -> Result<()> {
        let (east, west) = (self.clusters.east.clone(), self.clusters.west.clone());
        let since = now();
        events::restart(&east, GATEWAY).await?;
        let seen = self.seen(since).await?;
        self.judge_unnoticed("rolling restart of east's gateways", since, &seen);

        let since = now();
        events::restart(&west, GATEWAY).await?;
        let seen = self.seen(since).await?;
        self.judge_unnoticed("rolling restart of west's gateways", since, &seen);

        let since = now();
        tokio::try_join!(events::restart(&east, GATEWAY), events::restart(&west, GATEWAY))?;
        let seen = self.seen(since).await?;
        self.judge_unnoticed("rolling restart of both clusters' gateways", since, &seen);

        let since = now();
        tokio::try_join!(events::restart(&east, CONTROLLER), events::restart(&west, CONTROLLER))?;
        let seen = self.seen(since).await?;
        self.judge_unnoticed("rolling restart of both clusters' controllers", since, &seen);
        Ok(())
    }

    /// Down to the version before, and up again: either is an upgrade to another version.
    async fn upgrade(&mut self, system: &System, charts: &std::path::Path) -> Result<()> {
        let Some(previous) = previous_charts() else {
            needs::skip("helm upgrade to another version", "LINKSPAN_PREVIOUS_CHARTS names no charts");
            return Ok(());
        };
        let (clusters, before) = (self.clusters.clone(), [&VALUES[..], &["imageVersion=previous"]].concat());
        for (name, charts, values) in [
            ("helm upgrade to the version before", previous.as_path(), &before[..]),
            ("helm upgrade to this version", charts, &VALUES[..]),
        ] {
            let since = now();
            system.upgrade(&clusters, charts, values).await?;
            tokio::join!(events::none_leaves(&clusters.east), events::none_leaves(&clusters.west));
            let seen = self.seen(since).await?;
            self.judge_unnoticed(name, since, &seen);
        }
        Ok(())
    }

    async fn kills(&mut self) -> Result<()> {
        for (name, cluster) in [("east", self.clusters.east.clone()), ("west", self.clusters.west.clone())] {
            let since = now();
            let victim = gateways(&cluster).await?.into_iter().next().context("no gateway")?;
            let killed = events::signal(&victim, "KILL").await?;
            let seen = self.seen(since).await?;
            let missed = [seen.last_failure(killed, 1000), seen.enough(RATE)].concat();
            let last = seen.failures().last().map_or(0, |f| f.ended() - killed);
            let text = format!("{}, the last {last} ms after", seen.text());
            self.judge(&format!("kill -9 of one of {name}'s gateways"), text, missed);
        }
        Ok(())
    }

    async fn backend_killed(&mut self) -> Result<()> {
        let since = now();
        let victim = pods(&self.clusters.west, self.load.namespace(), "app=load").await?;
        let killed = events::signal(victim.first().context("no backend")?, "KILL").await?;
        let seen = self.seen(since).await?;
        let missed = [seen.last_failure(killed, 1000), seen.enough(RATE)].concat();
        self.judge("a west backend pod killed", seen.text(), missed);
        Ok(())
    }

    async fn no_gateways_in_west(&mut self) -> Result<()> {
        let (east, west) = (self.clusters.east.clone(), self.clusters.west.clone());
        let since = now();
        let gone = events::lose_gateways(&west).await?;
        let not_ready = self.mirror_ready(&east, false).await?;
        sleep(Duration::from_secs(5)).await;
        let back = Instant::now();
        scale(&west, GATEWAY, 2).await?;
        let running = now();
        let ready = self.mirror_ready(&east, true).await?;
        let seen = self.seen(since).await?;
        let mut missed = seen.told_within(1000, since, not_ready);
        missed.extend(seen.told_within(1500, not_ready, i64::MAX));
        for (what, took) in [("slices not ready", not_ready - gone), ("slices ready again", ready - running)]
        {
            if took > 5000 {
                missed.push(format!("{what} after {took} ms"));
            }
        }
        missed.extend(seen.failed_from(ready + 1000));
        let (by_gateway, by_node) =
            (seen.slowest_error(since, not_ready), seen.slowest_error(not_ready, i64::MAX));
        let text = format!(
            "{}; slowest error {by_gateway} ms, with slices not ready {by_node} ms; slices not ready {} ms after the last gateway was ended, ready {} ms after two \
             were ready ({:.0} s after the order)",
            seen.text(),
            not_ready - gone,
            ready - running,
            back.elapsed().as_secs_f64()
        );
        self.judge("west's gateways scaled to 0, back to 2", text, missed);
        Ok(())
    }

    /// Waits until some endpoint of the mirror is ready, or none is; answers when that was.
    async fn mirror_ready(&self, east: &Cluster, wanted: bool) -> Result<i64> {
        let service = format!("kubernetes.io/service-name=load-{}", self.clusters.west.context);
        let ready = "jsonpath={.items[*].endpoints[*].conditions.ready}";
        let get = ["-n", self.load.namespace(), "get", "endpointslices", "-l", &service, "-o", ready];
        Ok(eventually(SOON * 2, format!("the mirror to be ready: {wanted}"), async || {
            let seen = east.kubectl(get).run(COMMAND).await?.success()?;
            ensure!(seen.contains("true") == wanted, "{seen:?}");
            Ok(now())
        })
        .await)
    }

    async fn no_controllers(&mut self) -> Result<()> {
        let (east, west) = (self.clusters.east.clone(), self.clusters.west.clone());
        tokio::try_join!(scale(&east, CONTROLLER, 0), scale(&west, CONTROLLER, 0))?;
        let since = now();
        let victim = gateways(&east).await?.into_iter().find(|pod| pod.restarts == 0);
        let killed =
            events::signal(&victim.context("no gateway whose container is its first")?, "KILL").await?;
        let seen = self.seen(since).await?;
        let last = seen.failures().last().map_or(0, |f| f.ended() - killed);
        let missed = [seen.last_failure(killed, 5000), seen.enough(RATE)].concat();
        let text = format!("{}, the last {last} ms after", seen.text());
        self.judge("controllers scaled to 0, a gateway container of east killed", text, missed);

        eventually(SOON, "both gateways of east to be ready", async || {
            let ready = events::ready(&east).await?;
            ensure!(ready.len() == 2, "{ready:?}");
            Ok(())
        })
        .await;
        let since = now();
        let before: Vec<String> = gateways(&east).await?.into_iter().map(|p| p.name).collect();
        let delete = ["-n", "linkspan", "delete", "pod", &before[0], "--wait=false"];
        east.kubectl(delete).run(COMMAND).await?.success()?;
        let new = eventually(SOON, "the new gateway pod to be ready", async || {
            let pods = events::ready(&east).await?;
            pods.into_iter().find(|name| !before.contains(name)).context("no new pod is ready")
        })
        .await;
        tokio::try_join!(scale(&east, CONTROLLER, 2), scale(&west, CONTROLLER, 2))?;
        let running = now();
        let service = format!("kubernetes.io/service-name=load-{}", west.context);
        let names =
            "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name} {end}";
        let get = ["-n", self.load.namespace(), "get", "endpointslices", "-l", &service, "-o", names];
        let serves = eventually(SOON, "the new gateway to be in the mirror's slice", async || {
            let seen = east.kubectl(get).run(COMMAND).await?.success()?;
            ensure!(seen.contains(&new), "{new} is not among {seen:?}");
            Ok(now())
        })
        .await;
        events::none_leaves(&east).await;
        let seen = self.seen(since).await?;
        let mut missed = [seen.none_failed(), seen.no_cut_before(since, DRAIN), seen.enough(RATE)].concat();
        if serves - running > 2000 {
            missed.push(format!("the new pod served {} ms after a controller was back", serves - running));
        }
        let text = format!(
            "{}; the new pod serves {} ms after the controllers are ready",
            seen.text(),
            serves - running
        );
        self.judge("controllers scaled to 0, a gateway pod of east replaced", text, missed);
        Ok(())
    }

    async fn paused_api_server(&mut self) -> Result<()> {
        let (east, west) = (self.clusters.east.clone(), self.clusters.west.clone());
        let time = std::env::var("LINKSPAN_PAUSE").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
        let since = now();
        let check = async {
            sleep(Duration::from_secs(time) * 2 / 3).await;
            let output = east.link_cli(["check", "--wait", "5s"])?.run(COMMAND).await?;
            anyhow::Ok(format!("{}{}", output.stdout, output.stderr))
        };
        let pause = events::pause_api_server(&west, Duration::from_secs(time));
        // Both to their end: the server must not stay paused, whatever the check says.
        let (check, paused) = tokio::join!(check, pause);
        let (check, ()) = (check?, paused?);
        let seen = self.seen(since).await?;
        let mut missed =
            [seen.none_failed(), seen.no_cut_before(since, i64::MAX), seen.enough(RATE)].concat();
        let told = |line: &&str| line.contains("APIs of linked clusters answer") && !line.contains('√');
        let line = check.lines().find(told);
        match line {
            Some(line) => println!("FIGURE: check says: {}", line.trim()),
            None => missed.push(format!("check does not tell: {check}")),
        }
        self.judge(&format!("west's API server paused for {time} s"), seen.text(), missed);
        // Its own clients must find it again before anything else happens.
        west.rolled_out(GATEWAY).await
    }

    /// Stops the clients: then both sides must have counted the same.
    async fn counts(&mut self) -> Result<()> {
        let (mut asked, mut missed) = (0, vec![]);
        let stopped = self.load.stop_clients().await?;
        let answered = self.load.answered().await?;
        for (name, report) in &stopped {
            let counted_as = report.counted_as.as_ref().context("a client did not tell its name")?;
            let count = answered.get(counted_as).copied().unwrap_or_default();
            asked += report.ok();
            if count < report.ok() || count > report.ok() + report.failed() {
                let (ok, failed) = (report.ok(), report.failed());
                missed
                    .push(format!("{name}: {ok} answered and {failed} failed, the servers answered {count}"));
            }
        }
        self.judge("all of it, counted on both sides", format!("{asked} requests"), missed);
        self.load.warm().await;
        Ok(())
    }

    async fn nodes_lost(&mut self) -> Result<()> {
        for (name, cluster) in [("east", self.clusters.east.clone()), ("west", self.clusters.west.clone())] {
            for leads in [false, true] {
                let leader = events::leader(&cluster).await?.node;
                let nodes = gateways(&cluster).await?.into_iter().map(|p| p.node);
                let node = nodes.into_iter().find(|node| (*node == leader) == leads);
                let Some(node) = node else {
                    needs::skip("a worker lost", &format!("no gateway of {name} on a fitting node"));
                    continue;
                };
                let since = now();
                let killed = events::kill_node(&node).await?;
                let bar = if leads { 45_000 } else { 15_000 };
                sleep(Duration::from_millis(bar) - AFTER + Duration::from_secs(15)).await;
                let seen = self.seen_without(since, &node).await;
                events::start_node(&cluster, &node).await?;
                let seen = seen?;
                // Kept connections through the lost node wait for their answer: only new ones are judged.
                let new = seen.last_failed_connection(killed);
                let late = new.filter(|last| *last > i64::try_from(bar).unwrap_or(i64::MAX));
                let missed: Vec<String> = late
                    .map(|last| format!("new connections failed until {last} ms after"))
                    .into_iter()
                    .collect();
                let what = if leads { "with the leader" } else { "without the leader" };
                let text = format!(
                    "{}; the last connection that failed was begun {} ms after",
                    seen.text(),
                    new.unwrap_or(0)
                );
                self.judge(&format!("docker kill of a worker of {name} {what}"), text, missed);
                self.load.warm().await;
            }
        }
        Ok(())
    }
}
