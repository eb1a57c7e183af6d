//! The scenarios over a wide area network.

use crate::{
    adapter::Adapter,
    latency::Latency,
    load::Load,
    result::Results,
    rig::{Chain, Rig},
    scenarios::DIRECT,
};
use anyhow::{Context, Result};
use linkspan_tests::wan::{Wan, line::Quality};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::{net::SocketAddr, time::Duration};

/// Each way.
const DELAY: Duration = Duration::from_millis(20);
/// Bits per second where the line is a bottleneck, and bytes that may wait there: what is under way in one RTT.
const RATE: (u64, u64) = (200_000_000, 1_000_000);
/// Chains that are looked at; others differ little from these.
const CHAINS: [&str; 5] = ["floor", "linkspan", "haproxy-tcp", "nginx-stream", "stunnel"];
/// All that can be measured.
pub(crate) const SCENARIOS: [&str; 7] = [
    "wan-first-byte",
    "wan-first-byte-after-idle",
    "wan-burst",
    "wan-ping",
    "wan-bulk-1",
    "wan-bulk-8",
    "wan-loss",
];
/// Connections of a burst.
const BURST: u64 = 64;
/// A packet that came later than this by the emulator's fault makes a result doubtful.
const LATE: Duration = Duration::from_millis(10);

/// What is wanted.
pub(crate) struct Wanted<'a> {
    /// Whether a scenario is.
    pub(crate) scenario: &'a dyn Fn(&str) -> bool,
    /// Rounds.
    pub(crate) rounds: u32,
    /// How long the line lies idle before it is used again.
    pub(crate) idle: Duration,
    /// Decides about order and losses.
    pub(crate) seed: u64,
}

struct Way {
    name: String,
    address: SocketAddr,
}

/// Measures all that is wanted.
///
/// # Errors
/// When the line or the chains cannot be had.
pub(crate) fn measure(
    rig: &Rig,
    adapters: &[Adapter],
    wanted: &Wanted<'_>,
    results: &mut Results,
) -> Result<()> {
    let wan = Wan::between(&rig.east, &rig.west, Quality::delay(DELAY), wanted.seed)?;
    let (_, address) = wan.addresses();
    let (direct, _backend) = rig.direct(address)?;
    let mut chains: Vec<Chain> = Vec::new();
    for (number, adapter) in (40..).zip(adapters.iter().filter(|a| CHAINS.contains(&a.name.as_str()))) {
        match rig.start(adapter, number, address, 0) {
            Ok(chain) => chains.push(chain),
            Err(error) => println!("SKIPPED: {} over the WAN: {error:#}", adapter.name),
        }
    }
    let mut ways: Vec<Way> = vec![Way { name: DIRECT.to_owned(), address: direct }];
    ways.extend(chains.iter().map(|c| Way { name: c.name.clone(), address: c.entry }));
    let mut random = SmallRng::seed_from_u64(wanted.seed);
    let mut run = Run { rig, wan: &wan, results };
    for round in 1..=wanted.rounds {
        println!("WAN, round {round} of {}", wanted.rounds);
        ways.shuffle(&mut random);
        run.round(&ways, wanted);
    }
    for _ in 0..wanted.rounds.min(3) {
        if (wanted.scenario)("wan-first-byte-after-idle") {
            println!("WAN, idle for {:?}", wanted.idle);
            std::thread::sleep(wanted.idle);
            let established = run.established(direct);
            for way in &ways {
                // One connection each: only the first one comes after idle time.
                run.first_byte("wan-first-byte-after-idle", way, 1, established.as_ref());
            }
        }
    }
    Ok(())
}

struct Run<'a> {
    rig: &'a Rig,
    wan: &'a Wan,
    results: &'a mut Results,
}

impl Run<'_> {
    fn round(&mut self, ways: &[Way], wanted: &Wanted<'_>) {
        let is_wanted = wanted.scenario;
        let far = Quality::delay(DELAY);
        self.wan.set(far);
        if is_wanted("wan-first-byte") {
            let direct = ways.iter().find(|w| w.name == DIRECT).map(|w| w.address);
            let established = direct.map_or(Err("no direct way".to_owned()), |d| self.established(d));
            for way in ways {
                self.first_byte("wan-first-byte", way, 12, established.as_ref());
            }
        }
        if is_wanted("wan-burst") {
            for way in ways {
                // The first burst of this size is what prepares for the next one.
                let load = Load::Connect { at_once: BURST, bursts: 1, gap: Duration::ZERO };
                let burst = self.run(way, &load).and_then(|_| {
                    std::thread::sleep(Duration::from_secs(2));
                    self.run(way, &load)
                });
                self.add_both("wan-burst", way, burst);
            }
        }
        if is_wanted("wan-ping") {
            for way in ways {
                let ratio =
                    self.ping(way, true).and_then(|beside| Ok(beside.p99 / self.ping(way, false)?.p99));
                self.add("wan-ping", way, "ratio", ratio);
            }
        }
        self.wan.set(far.with_rate(RATE.0, RATE.1));
        for (name, flows) in [("wan-bulk-1", 1), ("wan-bulk-8", 8)] {
            if is_wanted(name) {
                for way in ways {
                    let load = Load::Bulk { flows, bytes: 100_000_000, up: false, pace: 0 };
                    let done = self.rig.load(way.address, &load).map_err(|e| format!("{e:#}"));
                    let rate = done.map(|d| d.units as f64 * 8e-6 / d.seconds);
                    self.add(name, way, "Mbit/s", rate);
                }
            }
        }
        self.wan.set(far.with_loss(0.005));
        if is_wanted("wan-loss") {
            for way in ways {
                let requests = self.run(way, &Load::Http { connections: 64, requests: 10_000, hold: None });
                self.add_both("wan-loss", way, requests);
            }
        }
        self.wan.set(far);
    }

    fn add(&mut self, scenario: &str, way: &Way, unit: &str, value: Result<f64, String>) {
        let value = self.believed(value);
        self.results.add(scenario, &way.name, unit, value, 0.0);
    }

    fn add_both(&mut self, scenario: &str, way: &Way, latency: Result<Latency, String>) {
        let latency = self.believed(latency);
        for (name, of) in [("p50", (|l| l.p50) as fn(&Latency) -> f64), ("p99", |l| l.p99)] {
            let value = latency.as_ref().map(|l| of(l) / 1e3).map_err(Clone::clone);
            self.results.add(&format!("{scenario}-{name}"), &way.name, "ms", value, 0.0);
        }
    }

    fn believed<T>(&self, value: Result<T, String>) -> Result<T, String> {
        match self.doubt() {
            None => value,
            Some(why) => Err(why),
        }
    }

    /// Why nothing that was just measured can be believed.
    fn doubt(&self) -> Option<String> {
        let counts = self.wan.counts().ok()?;
        self.wan.forget_latest();
        if counts.hidden > 0 {
            return Some(format!("the emulator lost {} packets by itself", counts.hidden));
        }
        (counts.latest > LATE).then(|| format!("the emulator came late by {:?}", counts.latest))
    }

    fn run(&self, way: &Way, load: &Load) -> Result<Latency, String> {
        let done = self.rig.load(way.address, load).and_then(|d| d.latency.context("nothing was done"));
        done.map_err(|e| format!("{}: {e:#}", way.name))
    }

    /// Round trip on an established direct connection, in microseconds.
    fn established(&self, direct: SocketAddr) -> Result<f64, String> {
        let way = Way { name: DIRECT.to_owned(), address: direct };
        let load = Load::Open { connections: 1, rate: 10.0, time: Duration::from_secs(2) };
        Ok(self.run(&way, &load)?.p50)
    }

    fn first_byte(&mut self, scenario: &str, way: &Way, count: u64, established: Result<&f64, &String>) {
        let first = self.run(way, &Load::Churn { at_once: 1, count });
        let above = first.and_then(|first| Ok((first.p50 - established.map_err(Clone::clone)?) / 1e3));
        self.add(scenario, way, "ms", above);
    }

    /// Pings through a way, alone or beside eight paced bulk flows through the same way: together 160 Mbit/s, for which
    /// there is room everywhere.
    fn ping(&self, way: &Way, beside_bulk: bool) -> Result<Latency, String> {
        let pings = Load::Open { connections: 2, rate: 50.0, time: Duration::from_secs(4) };
        let bulk = Load::Bulk { flows: 8, bytes: 8 * 30_000_000, up: false, pace: 2500 };
        let _bulk = match beside_bulk {
            false => None,
            true => {
                let bulk = self.rig.start_load(way.address, &bulk).map_err(|e| format!("{e:#}"))?;
                std::thread::sleep(Duration::from_secs(1));
                Some(bulk)
            }
        };
        self.run(way, &pings)
    }
}
