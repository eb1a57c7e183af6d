//! Network namespaces: processes with real addresses, on one machine.
//!
//! A [`Network`] is a bridge with a private /24. The test itself is on it at [`Network::host_address`], so that what
//! runs in a [`Namespace`] can reach an API server that listens there. The bridge lies in a namespace of its own,
//! where the machine's firewall rules do not reach; there is no way out of it.

use crate::{
    program::{Output, Program},
    scratch::is_alive,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::Ipv4Addr,
    sync::{
        Once,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

/// The first two bytes of all addresses.
const RANGE: (u8, u8) = (10, 213);
const PREFIX: &str = "lst";
const IP: Duration = Duration::from_secs(20);

/// A private network, gone on drop together with its namespaces. Needs [`crate::Need::Root`].
#[derive(Debug)]
pub struct Network {
    index: u8,
    hub: String,
    last: AtomicU8,
}

/// A namespace on a [`Network`], with one interface `eth0` and one address.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    hub: String,
    port: String,
    address: Ipv4Addr,
}

impl Network {
    /// A new network with a range that no other has.
    ///
    /// # Errors
    /// When the system refuses, or all 250 ranges are taken.
    pub fn new() -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let pid = std::process::id();
        for index in 1..=250 {
            let hub = format!("{PREFIX}{pid}-{index}-hub");
            let link = host_link(index);
            // The name of the host's end says which range is taken: two cannot have one name.
            if !run_ip(&format!("link add {link} type veth peer name {link}h"))?.status.success() {
                continue;
            }
            let network = Self { index, hub, last: AtomicU8::new(1) };
            let hub = &network.hub;
            ip(&format!("link set dev {link} alias {PREFIX}{pid}"))?;
            ip(&format!("netns add {hub}"))?;
            ip(&format!("-n {hub} link add br0 type bridge"))?;
            ip(&format!("-n {hub} link set br0 up"))?;
            ip(&format!("link set {link}h netns {hub}"))?;
            ip(&format!("-n {hub} link set {link}h master br0 up"))?;
            ip(&format!("addr add {}/24 dev {link}", network.host_address()))?;
            ip(&format!("link set {link} up"))?;
            return Ok(network);
        }
        bail!("all ranges of 10.213.0.0/16 are taken: `ip -br link` shows by which {PREFIX}* interfaces")
    }

    /// The test's own address on it.
    pub fn host_address(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// A new namespace on it.
    ///
    /// # Errors
    /// When the system refuses, or the range is used up.
    pub fn namespace(&self) -> Result<Namespace> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if number == u8::MAX {
            bail!("network {} has no address left", self.address(0));
        }
        let hub = self.hub.clone();
        let name = hub.replace("-hub", &format!("-{number}"));
        let port = format!("p{number}");
        ip(&format!("netns add {name}"))?;
        let namespace = Namespace { name, hub, port, address: self.address(number) };
        let Namespace { name, hub, port, address } = &namespace;
        ip(&format!("-n {hub} link add {port} type veth peer name eth0 netns {name}"))?;
        ip(&format!("-n {hub} link set {port} master br0 up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        Ok(namespace)
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(RANGE.0, RANGE.1, self.index, number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The other end, the bridge and its ports go with these two.
        report(ip(&format!("link del {}", host_link(self.index))));
        report(ip(&format!("netns del {}", self.hub)));
    }
}

impl Namespace {
    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The command `program`, to be run inside.
    pub fn program(&self, program: &str) -> Program {
        Program::new(program).within(self)
    }

    /// Drops all its packets from now on without telling anybody: what a dead machine or a broken line looks like.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn unplug(&self) -> Result<()> {
        ip(&format!("-n {} link set {} nomaster", self.hub, self.port))
    }

    /// Takes back [`Namespace::unplug`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn plug(&self) -> Result<()> {
        ip(&format!("-n {} link set {} master br0", self.hub, self.port))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        report(ip(&format!("netns del {}", self.name)));
    }
}

fn host_link(index: u8) -> String {
    format!("{PREFIX}{index}")
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("{error:#}");
    }
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(args: &str) -> Result<()> {
    ip_output(args).map(drop)
}

/// Runs `ip` with these arguments; answers what it writes.
pub(crate) fn ip_output(args: &str) -> Result<String> {
    let output = run_ip(args)?;
    if !output.status.success() {
        bail!("`ip {args}` failed: {}", output.stderr);
    }
    Ok(output.stdout)
}

fn run_ip(args: &str) -> Result<Output> {
    Program::new("ip").args(args.split(' ')).run_blocking(IP).context("cannot run ip")
}

/// Removes what test processes that were killed have left.
fn sweep() {
    let stale = |name: &str| {
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|p| p.parse().ok());
        pid.is_some_and(|pid| !is_alive(pid))
    };
    let names = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|n| n.starts_with(PREFIX))
    };
    for name in names("/run/netns").filter(|name| stale(name)) {
        report(ip(&format!("netns del {name}")));
    }
    for link in names("/sys/class/net") {
        let owner = fs::read_to_string(format!("/sys/class/net/{link}/ifalias")).unwrap_or_default();
        if stale(owner.trim()) {
            report(ip(&format!("link del {link}")));
        }
    }
}
