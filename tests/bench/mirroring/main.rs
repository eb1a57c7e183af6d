//! The control plane at scale, on two real API servers: one row per bar. Run by hand, as root, on a quiet machine:
//! `make bench-mirroring`; `BENCH_ARGS="--mirrors 1000 --idle 20"` for a short look.
//!
//! Everything that the controller does goes through the harness' proxy, which notes each request; so does the bare
//! loop that it is compared with.

mod gateway;
mod load;
mod many_links;
mod report;

use anyhow::{Context, Result};
use gateway::Gateway;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, Client};
use linkspan_core::api::labels;
use linkspan_tests::{Installation, Need, have, netns::Network};
use load::SHOP;
use report::{Bar, Report};
use std::{net::Ipv4Addr, time::Duration};
use tokio::time::Instant;

/// Longest that any one part may take.
const LONG: Duration = Duration::from_secs(900);

/// What is measured, and how much of it.
pub(crate) struct Options {
    mirrors: usize,
    beside: usize,
    samples: usize,
    idle: Duration,
    links: usize,
    json: Option<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self {
            mirrors: 10_000,
            beside: 100_000,
            samples: 100,
            idle: Duration::from_secs(180),
            links: 250,
            json: None,
        };
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--mirrors" => options.mirrors = value.parse()?,
                "--beside" => options.beside = value.parse()?,
                "--samples" => options.samples = value.parse()?,
                "--idle" => options.idle = Duration::from_secs(value.parse()?),
                "--links" => options.links = value.parse()?,
                "--json" => options.json = Some(value),
                other => anyhow::bail!(
                    "{other} is not known: --mirrors, --beside, --samples, --idle (seconds), --links, --json (file)"
                ),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    if !have(&[Need::ApiServer, Need::Root, Need::Tool("kube-controller-manager")]) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let measured = runtime.block_on(async {
        if options.mirrors > 0 {
            one_link(&options, &mut report).await?;
        }
        if options.links > 0 {
            many_links::measure(options.links, &mut report).await?;
        }
        anyhow::Ok(())
    });
    report.print();
    if let Some(path) = &options.json {
        std::fs::write(path, report.json())?;
    }
    measured
}

/// Both clusters, through the proxies, and the gateway that is played.
pub(crate) struct Bed {
    pub(crate) east: Installation,
    pub(crate) west: Installation,
    pub(crate) in_east: Client,
    pub(crate) in_west: Client,
}

impl Bed {
    pub(crate) async fn new(flags: &[String]) -> Result<Self> {
        let (local, nowhere) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(10, 213, 255, 1));
        let east = Installation::new("east", local, nowhere).await?.with_flags(flags);
        let west = Installation::new("west", local, nowhere).await?;
        let in_east = east.server.client(&east.server.admin_kubeconfig()?).await?;
        let in_west = west.server.client(&west.server.admin_kubeconfig()?).await?;
        load::namespace(&in_east, SHOP).await?;
        load::namespace(&in_west, SHOP).await?;
        Ok(Self { east, west, in_east, in_west })
    }
}

async fn one_link(options: &Options, report: &mut Report) -> Result<()> {
    let n = options.mirrors;
    let network = Network::new()?;
    let gateway = Gateway::start(network.host_address(), "west").await?;
    let mut bed = Bed::new(&["--gateway-admin-port".to_owned(), gateway.port().to_string()]).await?;
    gateway.place(&bed.in_east).await?;
    bed.west.start_controller().await?;
    bed.east.start_controller().await?;
    bed.west.link_into(&bed.east).await?;

    eprintln!("export -> mirror and slice, idle");
    let idle = load::latencies(&bed, "idle", options.samples).await?;
    report.add(Bar::at_most("export -> mirror and slice, idle, p99", "ms", 300.0, p99(&idle)));
    let pid = bed.east.controller()?.pid();
    report.note("RSS with nothing to mirror", "MiB", rss(pid)?);

    eprintln!("a bare loop that makes the same objects");
    let bare = load::bare_rate(&bed.in_east, n).await?;
    report.note("bare create loop", "objects/s", bare);

    eprintln!("{n} exported Services in west, while nobody mirrors");
    bed.east.controller()?.stop(Duration::from_secs(20))?;
    load::exports(&bed.in_west, n).await?;
    load::published(&bed.in_west, n + options.samples, LONG).await?;

    eprintln!("first sync");
    bed.east.server.faults().forget_requests();
    bed.east.start_controller().await?;
    let pid = bed.east.controller()?.pid();
    let (took, peak) = first_sync(&bed, n, pid).await?;
    report.add(Bar::at_least(
        "first sync, share of the bare loop's rate",
        "",
        0.8,
        2.0 * n as f64 / took / bare,
    ));
    report.note("first sync", "s", took);
    report.note("RSS, most during first sync", "MiB", peak);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seen = bed.east.server.faults().requests();
    for method in ["POST", "PATCH", "PUT", "GET"] {
        let count = seen.iter().filter(|r| r.method == method && !r.path.contains("/leases/")).count();
        report.note(&format!("{method} requests of it, for each mirror"), "", count as f64 / n as f64);
    }
    let full = rss(pid)?;
    report.add(Bar::at_most(&format!("RSS with {n} mirrors"), "MiB", 60.0, full));

    eprintln!("export -> mirror and slice, with all of them");
    let busy = load::latencies(&bed, "busy", options.samples).await?;
    report.add(Bar::at_most(
        &format!("export -> mirror and slice, {n} mirrors, p99"),
        "ms",
        1000.0,
        p99(&busy),
    ));

    eprintln!("idle for {:?}", options.idle);
    tokio::time::sleep(Duration::from_secs(15)).await;
    bed.east.server.faults().forget_requests();
    tokio::time::sleep(options.idle).await;
    let seen = bed.east.server.faults().requests();
    let writes: Vec<_> = seen.iter().filter(|r| r.method != "GET" && !r.path.contains("/leases/")).collect();
    for write in writes.iter().take(5) {
        eprintln!("  written: {} {}", write.method, write.path);
    }
    let what = format!("API writes in {} idle seconds", options.idle.as_secs());
    report.add(Bar::at_most(&what, "", 0.0, writes.len() as f64));

    eprintln!("the target's gateway dies");
    let (first, all) = load::death(&bed.in_east, n, &gateway).await?;
    report.add(Bar::at_most("gateway dead: first slice", "s", 3.0, first));
    report.add(Bar::at_most("gateway dead: all slices", "s", 30.0, all));

    if options.beside > 0 {
        eprintln!("{} headless Services beside them", options.beside);
        let before = rss(pid)?;
        load::beside(&bed.in_east, options.beside).await?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let after = rss(pid)?;
        let what = format!("RSS with {} headless Services beside, growth", options.beside);
        report.add(Bar::at_most(&what, "%", 5.0, (after / before - 1.0) * 100.0));
    }
    Ok(())
}

/// Waits until `n` mirrors and slices stand; seconds from the start of the Link's list, and the most memory used.
async fn first_sync(bed: &Bed, n: usize, pid: u32) -> Result<(f64, f64)> {
    let (start, mut begun, mut peak) = (Instant::now(), None, 0.0_f64);
    loop {
        let slices = load::made(bed, "/endpointslices");
        if begun.is_none() && load::made(bed, "/services") > 0 {
            begun = Some(Instant::now());
        }
        peak = peak.max(rss(pid)?);
        if slices >= n {
            return Ok((begun.unwrap_or(start).elapsed().as_secs_f64(), peak));
        }
        anyhow::ensure!(start.elapsed() < LONG, "{slices} slices after {LONG:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Resident memory of process `pid` in MiB.
pub(crate) fn rss(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// The 99th percentile in milliseconds.
pub(crate) fn p99(samples: &[Duration]) -> f64 {
    let mut all: Vec<f64> = samples.iter().map(|s| s.as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = (all.len() * 99).div_ceil(100).saturating_sub(1);
    all.get(at).copied().unwrap_or(f64::NAN)
}

/// The APIs that most parts speak to, in namespace [`SHOP`].
pub(crate) fn shop(client: &Client) -> (Api<Service>, Api<EndpointSlice>) {
    (Api::namespaced(client.clone(), SHOP), Api::namespaced(client.clone(), SHOP))
}

/// Label selector of our slices.
pub(crate) fn our_slices() -> String {
    format!("{}={}", labels::SLICE_MANAGED_BY, labels::MANAGED_BY)
}
