//! A run: all chains up at once, short loads in shuffled order, round by round.

use crate::{
    adapter::{self, Adapter},
    load::Load,
    report,
    result::Results,
    rig::{Chain, End, Rig},
    scenarios::{By, COSTED, Costed, FLOOR, OURS, OURS_HTTP},
    usage, wan,
};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use linkspan_tests::Process;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Rounds of each load.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Only these chains (the floor and ours among them), e.g. floor,linkspan.
    #[arg(long, value_delimiter = ',')]
    chains: Vec<String>,
    /// Only scenarios whose name begins with one of these, e.g. bulk,idle,flow,scale,wan.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds over which idle chains are watched.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Seconds that the WAN lies idle before it is used again.
    #[arg(long, default_value_t = 60)]
    wan_idle: u64,
    /// Idle flows whose memory is measured, beside as many.
    #[arg(long, default_value_t = 1000)]
    flows: u64,
    /// Cipher suite of all chains; our gateways' own choice.
    #[arg(long, default_value = "TLS_AES_256_GCM_SHA384")]
    suite: String,
    /// Order of loads and losses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for results.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Compare our ratios to the floor with those of this file, and fail when one is worse by more than a quarter.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Write our ratios to this file.
    #[arg(long)]
    write_baseline: Option<PathBuf>,
}

impl RunArgs {
    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| scenario.starts_with(only.as_str()))
    }
}

/// Measures, prints a table and writes results.
///
/// # Errors
/// When the machine lacks something, a chain lets a stranger in, or a ratio is worse than the baseline allows.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let rig = Rig::new(&args.suite)?;
    let mut results = Results { machine: machine(), suite: args.suite.clone(), ..Results::default() };
    let adapters = adapters(args, &rig, &mut results)?;
    {
        let chains = start(&rig, &adapters, &mut results)?;
        if args.wants("idle") {
            idle(args, &chains, &mut results)?;
        }
        costs(args, &rig, &chains, &mut results)?;
        if args.wants("flow-memory") {
            flows(args, &rig, &chains, &mut results);
        }
        scale(args, &rig, &chains, &mut results)?;
    }
    if wan::SCENARIOS.iter().any(|name| args.wants(name)) {
        let wanted = wan::Wanted {
            scenario: &|name| args.wants(name),
            rounds: args.rounds.min(5),
            idle: Duration::from_secs(args.wan_idle),
            seed: args.seed,
        };
        wan::measure(&rig, &adapters, &wanted, &mut results)?;
    }
    println!("{}", report::table(&results));
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    fs::write(args.out.join("results.json"), serde_json::to_string_pretty(&results)?)?;
    for (name, svg) in report::plots(&results) {
        fs::write(args.out.join(name), svg)?;
    }
    println!("Results and plots: {}", args.out.display());
    if let Some(path) = &args.write_baseline {
        fs::write(path, serde_json::to_string_pretty(&report::ratios(&results))? + "\n")?;
    }
    match &args.baseline {
        None => Ok(()),
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            compare(&report::ratios(&results), &serde_json::from_str(&text)?)
        }
    }
}

/// Fails when a ratio is worse than its older one by more than a quarter.
fn compare(now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> Result<()> {
    let worse = |(name, old): (&String, &f64)| {
        let new = now.get(name)?;
        (*new > old * 1.25).then(|| format!("{name}: {new:.2} of the floor, was {old:.2}"))
    };
    let worse: Vec<String> = before.iter().filter_map(worse).collect();
    ensure!(worse.is_empty(), "worse by more than a quarter: {}", worse.join("; "));
    let shared = before.keys().filter(|name| now.contains_key(*name)).count();
    ensure!(shared > 0, "nothing was measured that the baseline has");
    println!("{shared} ratios compared with the baseline: none is worse by more than a quarter");
    Ok(())
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    // New network namespaces take it over; over a WAN it decides much.
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let (model, cores) = (model.trim_matches([' ', '\t', ':']), crate::rig::cores());
    format!("{model} x{cores}, Linux {}, TCP {}", kernel.trim(), congestion.trim())
}

fn adapters(args: &RunArgs, rig: &Rig, results: &mut Results) -> Result<Vec<Adapter>> {
    let mut wanted = Vec::new();
    for adapter in adapter::all()? {
        if !args.chains.is_empty() && !args.chains.contains(&adapter.name) {
            continue;
        }
        match adapter.missing(&rig.words()) {
            None => wanted.push(adapter),
            Some(program) if adapter.name == OURS => {
                bail!("{program} does not exist: build it with the same profile as the benchmark")
            }
            Some(program) => results.skipped.push(format!("{}: there is no {program}", adapter.name)),
        }
    }
    for skipped in &results.skipped {
        println!("SKIPPED: {skipped}");
    }
    Ok(wanted)
}

/// Starts all chains. One that does not work is left out, unless it is ours or the floor; one that lets strangers in
/// ends the run.
fn start(rig: &Rig, adapters: &[Adapter], results: &mut Results) -> Result<Vec<Chain>> {
    let mut chains = Vec::new();
    for (number, adapter) in (0..).zip(adapters) {
        match rig.start(adapter, number, rig.west.address(), 0) {
            Ok(chain) => chains.push(chain),
            Err(error) if [OURS, OURS_HTTP, FLOOR].contains(&adapter.name.as_str()) => return Err(error),
            Err(error) => {
                println!("SKIPPED: {}: {error:#}", adapter.name);
                results.skipped.push(format!("{}: it does not start", adapter.name));
            }
        }
    }
    for chain in &chains {
        let found = rig.refusals(chain)?;
        ensure!(found.sound(), "{} is not what it should be: {found:?}", chain.name);
        println!("{}: refuses plaintext and a foreign certificate; {}", chain.name, found.suite);
        ensure!(
            found.suite == results.suite,
            "{} agreed on another cipher suite: {}",
            chain.name,
            found.suite
        );
    }
    Ok(chains)
}

fn idle(args: &RunArgs, chains: &[Chain], results: &mut Results) -> Result<()> {
    let time = Duration::from_secs(args.idle);
    println!("idle for {time:?}");
    std::thread::sleep(Duration::from_secs(5));
    let sides = [(End::Egress, "egress"), (End::Ingress, "ingress")];
    let mut before = Vec::new();
    let began = Instant::now();
    for chain in chains {
        for (end, side) in sides {
            let pids = chain.processes(end)?;
            before.push((chain, end, side, usage::exact_cpu(&pids), pids));
        }
    }
    std::thread::sleep(time);
    for (chain, end, side, cpu, pids) in before {
        let used = (usage::exact_cpu(&pids) - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        results.add(&format!("idle-cpu-{side}"), &chain.name, "% of a CPU", Ok(used), 0.0);
        let memory = chain.memory(end).map(|kib| kib / 1024.0).map_err(|e| format!("{e:#}"));
        results.add(&format!("idle-memory-{side}"), &chain.name, "MiB", memory, 0.0);
    }
    Ok(())
}

fn costs(args: &RunArgs, rig: &Rig, chains: &[Chain], results: &mut Results) -> Result<()> {
    let mut pairs: Vec<(&Costed, &Chain)> = Vec::new();
    for costed in COSTED.iter().filter(|c| args.wants(c.name)) {
        pairs.extend(chains.iter().filter(|c| !c.http || costed.by == By::All).map(|c| (costed, c)));
    }
    if pairs.is_empty() {
        return Ok(());
    }
    // One load of each warms up and tells how much to do: half a second of CPU and more, as its clock has steps of 10 ms.
    let mut scales = Vec::new();
    for (costed, chain) in &pairs {
        let scale =
            rig.cost(chain, &(costed.load)(1)).map_or(1, |cost| (0.8 / cost.cpu.max(0.02)).ceil() as u64);
        scales.push(scale.clamp(1, 24));
    }
    let mut random = SmallRng::seed_from_u64(args.seed);
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        // What is compared is measured soon after one another.
        order.shuffle(&mut random);
        order.sort_by_key(|i| COSTED.iter().position(|c| c.name == pairs[*i].0.name));
        for i in &order {
            let (costed, chain) = pairs[*i];
            let cost = rig.cost(chain, &(costed.load)(scales[*i]));
            let others = cost.as_ref().map_or(0.0, |c| c.others);
            let value =
                cost.map(|c| c.cpu / c.done.units as f64 * costed.factor).map_err(|e| format!("{e:#}"));
            results.add(costed.name, &chain.name, costed.unit, value, others);
        }
    }
    Ok(())
}

fn flows(args: &RunArgs, rig: &Rig, chains: &[Chain], results: &mut Results) {
    for chain in chains.iter().filter(|c| !c.http) {
        let opened = || -> Result<(Process, [f64; 2])> {
            let kept = rig.idle(chain, args.flows)?;
            std::thread::sleep(Duration::from_secs(1));
            Ok((kept, [chain.memory(End::Egress)?, chain.memory(End::Ingress)?]))
        };
        // The first ones also take what is there once: code, and what earlier loads have left free.
        let measured = opened().and_then(|(_first, before)| {
            let (_second, after) = opened()?;
            Ok([0, 1].map(|i| (after[i] - before[i]) / args.flows as f64))
        });
        for (i, side) in ["egress", "ingress"].iter().enumerate() {
            let value = measured.as_ref().map(|m| m[i]).map_err(|e| format!("{e:#}"));
            results.add(&format!("flow-memory-{side}"), &chain.name, "KiB", value, 0.0);
        }
    }
}

/// CPU per request in relation to that with fewer connections, or fewer listeners.
fn scale(args: &RunArgs, rig: &Rig, chains: &[Chain], results: &mut Results) -> Result<()> {
    let per_request = |chain: &Chain, connections: u64| -> Result<f64> {
        let requests = 20_000.max(connections * 20);
        let cost = rig.cost(chain, &Load::Http { connections, requests, hold: None })?;
        Ok(cost.cpu / cost.done.units as f64)
    };
    let text = |e: anyhow::Error| format!("{e:#}");
    for _ in 0..args.rounds.min(3) {
        for chain in chains.iter().filter(|c| [OURS, FLOOR].contains(&c.name.as_str())) {
            for (name, from, to) in [("scale-64", 1, 64), ("scale-1000", 64, 1000), ("scale-5000", 64, 5000)]
            {
                if args.wants(name) {
                    let ratio = per_request(chain, from).and_then(|few| Ok(per_request(chain, to)? / few));
                    results.add(name, &chain.name, "ratio", ratio.map_err(text), 0.0);
                }
            }
        }
    }
    let ours =
        adapter::all()?.into_iter().find(|a| a.name == OURS).context("there is no adapter for ours")?;
    let name = "scale-10000-listeners";
    if args.wants(name) && chains.iter().any(|c| c.name == OURS) {
        let few = rig.start(&ours, 90, rig.west.address(), 9)?;
        let many = rig.start(&ours, 91, rig.west.address(), 9999)?;
        for _ in 0..args.rounds.min(3) {
            let ratio = per_request(&few, 64).and_then(|few| Ok(per_request(&many, 64)? / few));
            results.add(name, OURS, "ratio", ratio.map_err(text), 0.0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_may_be_worse_by_a_quarter_and_no_more() {
        let of = |pairs: &[(&str, f64)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let before = of(&[("a", 0.6), ("b", 1.0)]);
        compare(&of(&[("a", 0.74), ("c", 9.0)]), &before).unwrap();
        let error = compare(&of(&[("a", 0.76), ("b", 1.0)]), &before).unwrap_err().to_string();
        assert!(error.contains("a: 0.76") && !error.contains("b:"), "{error}");
        assert!(compare(&of(&[("c", 1.0)]), &before).is_err());
    }
}
