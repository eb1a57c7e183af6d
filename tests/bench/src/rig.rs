//! Two namespaces with all chains in them: caller and calling sides in `east`, called sides and backend in `west`.

use crate::{
    adapter::{Adapter, Side, Words, replace},
    certs,
    load::{Done, Load, READY},
    refuse::Refusals,
    usage::{self, Processes},
};
use anyhow::{Context, Result, bail, ensure};
use linkspan_tests::{
    Process, Program,
    netns::{Namespace, Network},
    scratch::Scratch,
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::time::Instant;

/// The backend's port.
const BACKEND: u16 = 7000;
/// First port of the called sides; each has one.
const TUNNELS: u16 = 4143;
/// First port of the calling sides.
const ENTRIES: u16 = 9100;
/// First of the ports that are only there to be many.
const MORE_LISTENERS: u16 = 20_000;
/// A chain must answer after this.
const START: Duration = Duration::from_secs(60);
/// A load that is not done after this has failed.
const LOAD: Duration = Duration::from_secs(180);
/// A chain that used no CPU for this long has come to rest.
const SETTLED: Duration = Duration::from_millis(200);
/// Time between two looks at a load.
const POLL: Duration = Duration::from_millis(20);

/// A running pair of proxies.
pub(crate) struct Chain {
    /// What it is called.
    pub(crate) name: String,
    /// Whether it carries nothing but HTTP.
    pub(crate) http: bool,
    /// Where the caller connects to.
    pub(crate) entry: SocketAddr,
    tunnel: SocketAddr,
    alpn: Option<String>,
    egress: Process,
    ingress: Process,
    _files: [Scratch; 2],
}

/// The two sides of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The calling side.
    Egress,
    /// The called side.
    Ingress,
}

impl Chain {
    fn pid(&self, end: End) -> u32 {
        match end {
            End::Egress => self.egress.pid(),
            End::Ingress => self.ingress.pid(),
        }
    }

    /// The processes of one side.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn processes(&self, end: End) -> Result<Vec<u32>> {
        Ok(Processes::now()?.tree(self.pid(end)))
    }

    /// Memory of one side in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self, end: End) -> Result<f64> {
        Ok(usage::memory(&self.processes(end)?)? as f64)
    }

    /// CPU seconds of both sides together so far.
    pub(crate) fn cpu(&self, processes: &Processes) -> f64 {
        processes.cpu(self.egress.pid()) + processes.cpu(self.ingress.pid())
    }
}

/// A load and what it cost.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    /// What was done.
    pub(crate) done: Done,
    /// CPU seconds of both sides.
    pub(crate) cpu: f64,
    /// Share of the machine that something else used meanwhile, 0 to 1.
    pub(crate) others: f64,
}

/// The namespaces, certificates and the backend. Processes end before their namespaces go.
pub(crate) struct Rig {
    /// The backend, and with it its namespace's port.
    _backend: Process,
    bench: PathBuf,
    suite: String,
    certs: Scratch,
    /// The caller's namespace.
    pub(crate) east: Namespace,
    /// The backend's namespace.
    pub(crate) west: Namespace,
    _network: Network,
}

impl Rig {
    /// An empty one.
    ///
    /// # Errors
    /// When the system refuses; it takes root.
    pub(crate) fn new(suite: &str) -> Result<Self> {
        let network = Network::new().context("network namespaces cannot be made (it takes root)")?;
        let (east, west) = (network.namespace()?, network.namespace()?);
        let certs = Scratch::new("certs")?;
        certs::write(&certs)?;
        let bench = std::env::current_exe().context("cannot tell the benchmark's own path")?;
        let listen = format!("127.0.0.1:{BACKEND}");
        let backend =
            Program::new(&bench).args(["backend", "--listen", &listen]).within(&west).start("backend")?;
        Ok(Self { _backend: backend, bench, suite: suite.to_owned(), certs, east, west, _network: network })
    }

    /// What is the same for all adapters.
    pub(crate) fn words(&self) -> Words {
        let gateway = self.bench.with_file_name("linkspan-gateway");
        Words::from([
            ("bench", self.bench.display().to_string()),
            ("gateway", gateway.display().to_string()),
            ("certs", self.certs.path().display().to_string()),
            ("suite", self.suite.clone()),
            ("name", certs::NAME.to_owned()),
            ("identity", certs::IDENTITY.to_owned()),
            ("account", certs::ACCOUNT.0.to_owned()),
            ("uid", certs::ACCOUNT.1.to_owned()),
        ])
    }

    /// Starts a chain as number `number` and waits until it carries something. Its called side is reached at
    /// `address`, an address of `west`. `listeners` are as many more ports of its calling side.
    ///
    /// # Errors
    /// When it cannot be started, or carries nothing.
    pub(crate) fn start(
        &self,
        adapter: &Adapter,
        number: u16,
        address: Ipv4Addr,
        listeners: u16,
    ) -> Result<Chain> {
        let (entry, tunnel) = (local(ENTRIES + number), SocketAddr::new(address.into(), TUNNELS + number));
        let backend = local(BACKEND);
        let (ingress, ingress_files) =
            self.side(adapter, &adapter.ingress, &self.west, tunnel, backend, 0)?;
        let (egress, egress_files) =
            self.side(adapter, &adapter.egress, &self.east, entry, tunnel, listeners)?;
        let mut chain = Chain {
            name: adapter.name.clone(),
            http: adapter.http,
            entry,
            tunnel,
            alpn: adapter.alpn.clone(),
            egress,
            ingress,
            _files: [ingress_files, egress_files],
        };
        self.until_it_carries(&mut chain)?;
        Ok(chain)
    }

    fn side(
        &self,
        adapter: &Adapter,
        side: &Side,
        namespace: &Namespace,
        listen: SocketAddr,
        next: SocketAddr,
        listeners: u16,
    ) -> Result<(Process, Scratch)> {
        let files = Scratch::new(&adapter.name)?;
        let mut words = self.words();
        words.extend([
            ("listen_host", listen.ip().to_string()),
            ("listen_port", listen.port().to_string()),
            ("next_host", next.ip().to_string()),
            ("next_port", next.port().to_string()),
            ("dir", files.path().display().to_string()),
            ("more_listeners", more_listeners(listeners)),
        ]);
        for (name, text) in &side.files {
            files.write(name, &replace(text, &words)?)?;
        }
        let command = side.command.iter().map(|word| replace(word, &words)).collect::<Result<Vec<_>>>()?;
        let (program, args) = command.split_first().context("an adapter's command is empty")?;
        let process = Program::new(program).args(args).within(namespace).start(&adapter.name)?;
        Ok((process, files))
    }

    fn until_it_carries(&self, chain: &mut Chain) -> Result<()> {
        let once = match chain.http {
            true => Load::Http { connections: 1, requests: 1, hold: None },
            false => Load::Churn { at_once: 1, count: 1 },
        };
        let end = Instant::now() + START;
        loop {
            chain.egress.running()?;
            chain.ingress.running()?;
            match self.load(chain.entry, &once) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    let logs = [chain.egress.tail(), chain.ingress.tail()].join("\n");
                    return Err(error.context(format!("{} carries nothing: {logs}", chain.name)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Runs a load in the caller's namespace.
    ///
    /// # Errors
    /// When it fails, or any byte of it is wrong.
    pub(crate) fn load(&self, to: SocketAddr, load: &Load) -> Result<Done> {
        let output = self.generator(to, load)?.run_blocking(LOAD)?;
        let text = output.success()?;
        serde_json::from_str(&text).with_context(|| format!("the load generator said {text:?}"))
    }

    /// Starts a load in the caller's namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start_load(&self, to: SocketAddr, load: &Load) -> Result<Process> {
        self.generator(to, load)?.start("load")
    }

    fn generator(&self, to: SocketAddr, load: &Load) -> Result<Program> {
        let load = serde_json::to_string(load)?;
        Ok(Program::new(&self.bench).args(["load", &to.to_string(), &load]).within(&self.east))
    }

    /// Runs a load through a chain and measures what it costs. What keep-alive connections cost to make is left out.
    ///
    /// # Errors
    /// When the load fails.
    pub(crate) fn cost(&self, chain: &Chain, load: &Load) -> Result<Cost> {
        let folder = Scratch::new("hold")?;
        let file = folder.path().join("go");
        let mut held = match load {
            Load::Http { connections, requests, .. } => {
                let hold = Some(file.clone());
                let load = Load::Http { connections: *connections, requests: *requests, hold };
                Some(self.start_ready(chain, &load)?)
            }
            _ => None,
        };
        let own = std::process::id();
        let read = || -> Result<(f64, f64, f64)> {
            let processes = Processes::now()?;
            Ok((chain.cpu(&processes), processes.cpu(own), usage::machine_busy()?))
        };
        let (cpu, all, busy) = read()?;
        let began = Instant::now();
        let done = match &mut held {
            None => self.load(chain.entry, load).with_context(|| chain.name.clone())?,
            Some(process) => {
                fs::write(&file, "")?;
                finish(process).with_context(|| chain.name.clone())?
            }
        };
        // The last flows end after their client has.
        std::thread::sleep(Duration::from_millis(30));
        let took = began.elapsed().as_secs_f64() * cores();
        let (cpu_after, all_after, busy_after) = read()?;
        let others = ((busy_after - busy) - (all_after - all)).max(0.0) / took;
        if let Some(process) = held {
            drop(process);
            settle(chain)?;
        }
        Ok(Cost { done, cpu: cpu_after - cpu, others })
    }

    /// Opens so many connections through a chain and leaves them idle; they end with the answer.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(crate) fn idle(&self, chain: &Chain, connections: u64) -> Result<Process> {
        self.start_ready(chain, &Load::Idle { connections })
    }

    /// Starts a load and waits until its connections are made.
    fn start_ready(&self, chain: &Chain, load: &Load) -> Result<Process> {
        let mut process = self.start_load(chain.entry, load)?;
        let end = Instant::now() + LOAD;
        while !process.log().contains(READY) {
            process.running().with_context(|| chain.name.clone())?;
            ensure!(Instant::now() < end, "{} took too long to connect for {load:?}", chain.name);
            std::thread::sleep(POLL);
        }
        Ok(process)
    }

    /// Whom the called side of a chain refuses.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(crate) fn refusals(&self, chain: &Chain) -> Result<Refusals> {
        let certs = self.certs.path().display().to_string();
        let mut program =
            Program::new(&self.bench).args(["refuse", &chain.tunnel.to_string(), &certs, &self.suite]);
        if let Some(alpn) = &chain.alpn {
            program = program.arg(alpn);
        }
        let text = program.within(&self.east).run_blocking(LOAD)?.success()?;
        serde_json::from_str(&text).with_context(|| format!("{text:?}"))
    }

    /// Where a caller in `east` reaches the backend without any proxy.
    ///
    /// # Errors
    /// When a relay cannot be started.
    pub(crate) fn direct(&self, address: Ipv4Addr) -> Result<(SocketAddr, Process)> {
        // The backend listens for its neighbours alone, as a pod behind a gateway would; this one is for everybody.
        let listen = SocketAddr::new(address.into(), BACKEND);
        let program = Program::new(&self.bench).args(["backend", "--listen", &listen.to_string()]);
        let mut process = program.within(&self.west).start("direct")?;
        let end = Instant::now() + START;
        while self.load(listen, &Load::Churn { at_once: 1, count: 1 }).is_err() {
            process.running()?;
            if Instant::now() > end {
                bail!("the backend at {listen} does not answer");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok((listen, process))
    }
}

/// Waits until a load is done.
fn finish(process: &mut Process) -> Result<Done> {
    let end = Instant::now() + LOAD;
    loop {
        // Asked before its log is read: what it says as it ends is not missed.
        let alive = process.running();
        let log = process.log();
        if let Some(line) = log.lines().find(|line| line.starts_with('{') && log.ends_with('\n')) {
            return serde_json::from_str(line).with_context(|| format!("the load generator said {line:?}"));
        }
        alive?;
        ensure!(Instant::now() < end, "a load takes too long");
        std::thread::sleep(POLL);
    }
}

/// Waits until a chain has ended the connections of a load: what comes next does not pay for them.
fn settle(chain: &Chain) -> Result<()> {
    let end = Instant::now() + LOAD;
    let mut before = chain.cpu(&Processes::now()?);
    loop {
        std::thread::sleep(SETTLED);
        let now = chain.cpu(&Processes::now()?);
        if now <= before {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{} does not come to rest after a load", chain.name);
        before = now;
    }
}

/// How many CPUs this machine has.
pub(crate) fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn more_listeners(count: u16) -> String {
    let listener =
        |n| format!("  - {{ port: {}, peer: west, target: \"api.bench:8080\" }}\n", MORE_LISTENERS + n);
    (0..count).map(listener).collect()
}
