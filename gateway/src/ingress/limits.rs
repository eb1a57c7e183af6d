//! What callers may use, so that one that misbehaves hurts only itself. Pure: the time is passed in; `gate` counts.

use crate::rate::{Bucket, Rate};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use tokio::time::Instant;

/// How many seconds' worth of handshakes may come at once after a pause.
const BURST_SECONDS: f64 = 4.0;
/// Connections without a flow that a caller may have beyond its flows: spares and probes.
const SPARES: usize = 1024;
/// Addresses that are remembered before those that have been quiet are forgotten.
const REMEMBERED: usize = 1024;

/// What callers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Limits of callers")]
pub struct Limits {
    /// TLS handshakes in flight; more wait in the system's queue.
    #[arg(long, default_value_t = 512)]
    pub max_handshakes: usize,
    /// TLS handshakes in flight from one address (IPv6: one /64); more are reset.
    #[arg(long, default_value_t = 128)]
    pub max_handshakes_per_address: usize,
    /// TLS handshakes begun per second; more wait in the system's queue.
    #[arg(long, default_value_t = 2000)]
    pub handshake_rate: u32,
    /// TLS handshakes begun per second from one address (IPv6: one /64), after a burst of four times as many; more
    /// are reset.
    #[arg(long, default_value_t = 1000)]
    pub handshake_rate_per_address: u32,
    /// Flows that one linked cluster (account) may have open at this gateway; more are refused. It may have 1024
    /// connections more than that.
    #[arg(long, default_value_t = 20_000)]
    pub max_flows_per_peer: usize,
    /// A flow that carries nothing for this long is ended, at most a quarter later; 0: never.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = crate::config::seconds)]
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_handshakes: 512,
            max_handshakes_per_address: 128,
            handshake_rate: 2000,
            handshake_rate_per_address: 1000,
            max_flows_per_peer: 20_000,
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// [`Limits::max_handshakes_per_address`].
    HandshakesPerAddress,
    /// [`Limits::handshake_rate_per_address`].
    HandshakeRatePerAddress,
    /// Connections, which follow from [`Limits::max_flows_per_peer`].
    ConnectionsPerPeer,
    /// [`Limits::max_flows_per_peer`].
    FlowsPerPeer,
}

impl Beyond {
    /// The word in logs and metrics: the flag that sets it, where there is one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HandshakesPerAddress => "max-handshakes-per-address",
            Self::HandshakeRatePerAddress => "handshake-rate-per-address",
            Self::ConnectionsPerPeer => "connections-per-peer",
            Self::FlowsPerPeer => "max-flows-per-peer",
        }
    }
}

/// What is in use.
#[derive(Debug)]
pub struct Usage {
    limits: Limits,
    all: Bucket,
    addresses: HashMap<IpAddr, Address>,
    forget_at: usize,
    callers: HashMap<String, Caller>,
}

#[derive(Debug)]
struct Address {
    in_flight: usize,
    bucket: Bucket,
}

#[derive(Debug, Default)]
struct Caller {
    connections: usize,
    flows: usize,
}

impl Usage {
    /// Nothing is in use.
    pub fn new(limits: Limits, now: Instant) -> Self {
        let all = Bucket::full(rate(limits.handshake_rate), now);
        Self { limits, all, addresses: HashMap::new(), forget_at: REMEMBERED, callers: HashMap::new() }
    }

    /// When the next connection may be accepted.
    pub fn accept_at(&mut self, now: Instant) -> Instant {
        self.all.next(now)
    }

    /// A connection from `ip` begins its handshake.
    ///
    /// # Errors
    /// When it may not.
    pub fn arrive(&mut self, ip: IpAddr, now: Instant) -> Result<(), Beyond> {
        self.all.take(now);
        if self.addresses.len() >= self.forget_at {
            self.addresses.retain(|_, one| one.in_flight > 0 || !one.bucket.is_full(now));
            // Not looked through again before twice as many have come.
            self.forget_at = REMEMBERED.max(2 * self.addresses.len());
        }
        let per_address = rate(self.limits.handshake_rate_per_address);
        let one = self
            .addresses
            .entry(network(ip))
            .or_insert_with(|| Address { in_flight: 0, bucket: Bucket::full(per_address, now) });
        if one.in_flight >= self.limits.max_handshakes_per_address {
            return Err(Beyond::HandshakesPerAddress);
        }
        if !one.bucket.take(now) {
            return Err(Beyond::HandshakeRatePerAddress);
        }
        one.in_flight += 1;
        Ok(())
    }

    /// A handshake from `ip` is over.
    pub fn settled(&mut self, ip: IpAddr) {
        if let Some(one) = self.addresses.get_mut(&network(ip)) {
            one.in_flight = one.in_flight.saturating_sub(1);
        }
    }

    /// `account` has one connection more. How many it has.
    ///
    /// # Errors
    /// When it may not.
    pub fn connect(&mut self, account: &str) -> Result<usize, Beyond> {
        let caller = self.callers.entry(account.to_owned()).or_default();
        if caller.connections >= self.limits.max_flows_per_peer.saturating_add(SPARES) {
            return Err(Beyond::ConnectionsPerPeer);
        }
        caller.connections += 1;
        Ok(caller.connections)
    }

    /// `account` has one connection less. How many it has.
    pub fn disconnect(&mut self, account: &str) -> usize {
        let Some(caller) = self.callers.get_mut(account) else { return 0 };
        caller.connections = caller.connections.saturating_sub(1);
        let left = caller.connections;
        if left == 0 {
            self.callers.remove(account);
        }
        left
    }

    /// `account`, which has a connection, has one flow more.
    ///
    /// # Errors
    /// When it may not.
    pub fn open(&mut self, account: &str) -> Result<(), Beyond> {
        match self.callers.get_mut(account) {
            Some(caller) if caller.flows < self.limits.max_flows_per_peer => {
                caller.flows += 1;
                Ok(())
            }
            _ => Err(Beyond::FlowsPerPeer),
        }
    }

    /// `account` has one flow less.
    pub fn close(&mut self, account: &str) {
        if let Some(caller) = self.callers.get_mut(account) {
            caller.flows = caller.flows.saturating_sub(1);
        }
    }
}

fn rate(per_second: u32) -> Rate {
    let per_second = f64::from(per_second.max(1));
    Rate { per_second, burst: per_second * BURST_SECONDS }
}

/// What is counted as one address: with IPv6, one customer has at least a /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits { max_handshakes_per_address: 2, max_flows_per_peer: 1, ..Limits::default() }
    }

    #[test]
    fn one_address_cannot_take_the_place_of_others() {
        let now = Instant::now();
        let mut usage = Usage::new(limits(), now);
        let (noisy, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert_eq!(usage.arrive(noisy, now), Ok(()));
        assert_eq!(usage.arrive("::ffff:10.0.0.1".parse().unwrap(), now), Ok(()));
        assert_eq!(usage.arrive(noisy, now), Err(Beyond::HandshakesPerAddress));
        assert_eq!(usage.arrive(other, now), Ok(()));
        usage.settled(noisy);
        assert_eq!(usage.arrive(noisy, now), Ok(()));
        // Two addresses of one IPv6 network are one.
        for (last, allowed) in [(1, true), (2, true), (3, false)] {
            let ip = Ipv6Addr::new(0xfd00, 0, 0, 0, last, 0, 0, last).into();
            assert_eq!(usage.arrive(ip, now).is_ok(), allowed);
        }
    }

    #[test]
    fn addresses_that_are_quiet_are_forgotten() {
        let start = Instant::now();
        let mut usage = Usage::new(limits(), start);
        for i in 0..20_000u32 {
            let now = start + Duration::from_millis(u64::from(i));
            let ip = IpAddr::from(i.to_be_bytes());
            usage.arrive(ip, now).unwrap();
            usage.settled(ip);
        }
        assert!(usage.addresses.len() <= 2 * REMEMBERED, "{}", usage.addresses.len());
    }

    #[test]
    fn a_caller_has_so_many_flows_and_connections() {
        let mut usage = Usage::new(limits(), Instant::now());
        assert_eq!(usage.open("east"), Err(Beyond::FlowsPerPeer), "no connection");
        for count in 1..=SPARES + 1 {
            assert_eq!(usage.connect("east"), Ok(count));
        }
        assert_eq!(usage.connect("east"), Err(Beyond::ConnectionsPerPeer));
        assert_eq!(usage.connect("north"), Ok(1));
        assert_eq!(usage.open("east"), Ok(()));
        assert_eq!(usage.open("east"), Err(Beyond::FlowsPerPeer));
        usage.close("east");
        assert_eq!(usage.open("east"), Ok(()));
        assert_eq!(usage.disconnect("north"), 0);
        assert_eq!(usage.callers.len(), 1);
    }

    proptest! {
        #[test]
        fn never_more_in_flight_than_allowed(steps in prop::collection::vec((0u8..3, any::<bool>()), 0..200)) {
            let now = Instant::now();
            let mut usage = Usage::new(limits(), now);
            let mut in_flight = [0usize; 3];
            for (who, arrives) in steps {
                let ip = IpAddr::from([10, 0, 0, who]);
                let count = &mut in_flight[usize::from(who)];
                if arrives {
                    let allowed = usage.arrive(ip, now).is_ok();
                    prop_assert_eq!(allowed, *count < 2);
                    *count += usize::from(allowed);
                } else if *count > 0 {
                    usage.settled(ip);
                    *count -= 1;
                }
            }
        }
    }
}
