//! The scenarios, and the bars that our gateways are held to.

use crate::load::Load;

const MIB: u64 = 1024 * 1024;
/// What all CPU times are compared with.
pub(crate) const FLOOR: &str = "floor";
/// Ours.
pub(crate) const OURS: &str = "linkspan";
/// Ours where they proxy each HTTP request.
pub(crate) const OURS_HTTP: &str = "linkspan-http";
/// The WAN scenarios' comparison: no proxy at all.
pub(crate) const DIRECT: &str = "direct";

/// A load whose CPU time counts.
pub(crate) struct Costed {
    /// Its name.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) title: &'static str,
    /// What a value counts.
    pub(crate) unit: &'static str,
    /// From CPU seconds per unit of the load to that.
    pub(crate) factor: f64,
    /// The load at a scale; 1 takes the floor about a quarter of a second of CPU.
    pub(crate) load: fn(u64) -> Load,
    /// Whether it is carried by chains that understand HTTP, by those that carry bytes, or both.
    pub(crate) by: By,
}

/// Which chains can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Those that carry bytes.
    Bytes,
    /// All.
    All,
}

/// CPU seconds per gigabyte.
const PER_GB: f64 = 1e9;
/// CPU microseconds.
const MICROS: f64 = 1e6;

/// All loads whose CPU time is compared.
pub(crate) const COSTED: [Costed; 6] = [
    Costed {
        name: "bulk-1-down",
        title: "bulk, 1 flow to the caller",
        unit: "CPU s/GB",
        factor: PER_GB,
        load: |scale| Load::Bulk { flows: 1, bytes: 128 * MIB * scale, up: false, pace: 0 },
        by: By::Bytes,
    },
    Costed {
        name: "bulk-1-up",
        title: "bulk, 1 flow from the caller",
        unit: "CPU s/GB",
        factor: PER_GB,
        load: |scale| Load::Bulk { flows: 1, bytes: 128 * MIB * scale, up: true, pace: 0 },
        by: By::Bytes,
    },
    Costed {
        name: "bulk-8-down",
        title: "bulk, 8 flows to the caller",
        unit: "CPU s/GB",
        factor: PER_GB,
        load: |scale| Load::Bulk { flows: 8, bytes: 128 * MIB * scale, up: false, pace: 0 },
        by: By::Bytes,
    },
    Costed {
        name: "bulk-8-up",
        title: "bulk, 8 flows from the caller",
        unit: "CPU s/GB",
        factor: PER_GB,
        load: |scale| Load::Bulk { flows: 8, bytes: 128 * MIB * scale, up: true, pace: 0 },
        by: By::Bytes,
    },
    Costed {
        name: "keep-alive",
        title: "HTTP requests, 64 keep-alive connections",
        unit: "CPU us",
        factor: MICROS,
        load: |scale| Load::Http { connections: 64, requests: 5000 * scale, hold: None },
        by: By::All,
    },
    Costed {
        name: "new-connection",
        title: "new connections, 8 at a time",
        unit: "CPU us",
        factor: MICROS,
        load: |scale| Load::Churn { at_once: 8, count: 250 * scale },
        by: By::Bytes,
    },
];

/// What our value is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// The ratio to this chain's value is at most so much.
    Ratio(&'static str, f64),
    /// The ratio to this chain's value is at least so much.
    RatioAtLeast(&'static str, f64),
    /// The value itself is at most so much.
    Value(f64),
}

/// What a chain of ours is held to in a scenario.
pub(crate) fn bar(scenario: &str, chain: &str) -> Option<Bar> {
    if chain == OURS_HTTP {
        return (scenario == "keep-alive").then_some(Bar::Ratio("haproxy-http2", 1.0));
    }
    if chain != OURS {
        return None;
    }
    Some(match scenario {
        "bulk-1-down" | "bulk-1-up" | "bulk-8-down" | "bulk-8-up" => Bar::Ratio(FLOOR, 0.70),
        "keep-alive" => Bar::Ratio(FLOOR, 0.90),
        "new-connection" => Bar::Ratio(FLOOR, 0.20),
        "idle-memory-egress" | "idle-memory-ingress" => Bar::Value(6.0),
        "idle-cpu-egress" | "idle-cpu-ingress" => Bar::Value(0.02),
        "flow-memory-egress" | "flow-memory-ingress" => Bar::Value(6.0),
        "scale-64" | "scale-1000" | "scale-5000" | "scale-10000-listeners" => Bar::Value(1.15),
        "wan-first-byte" | "wan-first-byte-after-idle" => Bar::Value(1.5),
        "wan-burst-p50" => Bar::Value(45.0),
        "wan-burst-p99" => Bar::Value(60.0),
        "wan-bulk-1" | "wan-bulk-8" => Bar::RatioAtLeast(DIRECT, 0.95),
        "wan-loss-p50" => Bar::Ratio(DIRECT, 1.0),
        "wan-loss-p99" => Bar::Ratio(DIRECT, 1.1),
        "wan-ping" => Bar::Value(1.5),
        _ => return None,
    })
}

/// What a scenario's ratios are taken to, where that means something.
pub(crate) fn reference(scenario: &str) -> Option<&'static str> {
    match scenario {
        "wan-bulk-1" | "wan-bulk-8" | "wan-loss-p50" | "wan-loss-p99" => Some(DIRECT),
        s if COSTED.iter().any(|c| c.name == s) => Some(FLOOR),
        s if s.starts_with("flow-memory") || s.starts_with("idle-memory") => Some(FLOOR),
        _ => None,
    }
}

/// A scenario in words.
pub(crate) fn title(scenario: &str) -> &str {
    match scenario {
        "idle-memory-egress" => "idle, memory of the calling side",
        "idle-memory-ingress" => "idle, memory of the called side",
        "idle-cpu-egress" => "idle, CPU of the calling side",
        "idle-cpu-ingress" => "idle, CPU of the called side",
        "flow-memory-egress" => "an idle flow, memory of the calling side",
        "flow-memory-ingress" => "an idle flow, memory of the called side",
        "scale-64" => "CPU per request, 64 connections / 1",
        "scale-1000" => "CPU per request, 1,000 connections / 64",
        "scale-5000" => "CPU per request, 5,000 connections / 64",
        "scale-10000-listeners" => "CPU per request, 10,000 listeners / 10",
        "wan-first-byte" => "40 ms RTT, first byte of a new connection, above an established direct one",
        "wan-first-byte-after-idle" => "the same after idle time",
        "wan-burst-p50" => "40 ms RTT, 64 new connections at once, p50",
        "wan-burst-p99" => "40 ms RTT, 64 new connections at once, p99",
        "wan-bulk-1" => "40 ms RTT, 200 Mbit/s, 1 flow",
        "wan-bulk-8" => "40 ms RTT, 200 Mbit/s, 8 flows",
        "wan-loss-p50" => "40 ms RTT, 0.5 % loss, keep-alive requests, p50",
        "wan-loss-p99" => "40 ms RTT, 0.5 % loss, keep-alive requests, p99",
        "wan-ping" => "40 ms RTT, ping p99 beside 8 bulk flows / alone",
        other => COSTED.iter().find(|c| c.name == other).map_or(other, |c| c.title),
    }
}
