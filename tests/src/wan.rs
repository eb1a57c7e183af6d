//! A wide area network between two namespaces, packet by packet: delay, jitter, loss, a bottleneck, a cut.
//!
//! Each namespace gets a TUN device; threads of this process carry packets from one to the other and decide by
//! [`mod@line`] when each arrives, if it does. TCP runs through it end to end, with its own recovery and congestion
//! control. The only queue is the one that [`Quality`] names: [`Wan::counts`] tells when the devices dropped
//! something by themselves or the threads came late, so that a result under such conditions is not believed.

pub mod line;

use crate::{
    netns::{Namespace, ip, ip_output},
    program::Program,
};
use anyhow::{Context, Result};
use line::{Fate, Line, Quality};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::time::Instant;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Largest packet.
const MTU: usize = 1500;
/// Packets under way, each direction: a second of 1.5 Gbit/s.
const UNDER_WAY: usize = 128 * 1024;

/// What happened to packets so far, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Arrived.
    pub arrived: u64,
    /// Lost at random or by a cut.
    pub lost: u64,
    /// Lost because the queue before the bottleneck was full.
    pub overflow: u64,
    /// Lost where nothing should be: before these threads saw them, or because too much was under way.
    pub hidden: u64,
    /// By how much the latest packet came too late.
    pub latest: Duration,
}

/// The line, gone on drop.
#[derive(Debug)]
pub struct Wan {
    ends: [End; 2],
    lines: [Arc<Mutex<Line>>; 2],
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct End {
    namespace: String,
    device: String,
    address: Ipv4Addr,
}

#[derive(Debug, Default)]
struct Tally {
    arrived: AtomicU64,
    lost: AtomicU64,
    overflow: AtomicU64,
    too_many: AtomicU64,
    latest: AtomicU64,
}

struct Packet {
    bytes: Vec<u8>,
    due: Duration,
}

impl Wan {
    /// A line of `quality` each way between two namespaces of one network. `seed` decides which packets are lost.
    ///
    /// # Errors
    /// When the system refuses, e.g. because there is no `/dev/net/tun`.
    pub fn between(a: &Namespace, b: &Namespace, quality: Quality, seed: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let end = |namespace: &Namespace, side: char| End {
            namespace: namespace.name().to_owned(),
            device: format!("w{}-{number}{side}", std::process::id()),
            address: on_the_line(namespace.address()),
        };
        let ends = [end(a, 'a'), end(b, 'b')];
        let devices = [ends[0].open(ends[1].address)?, ends[1].open(ends[0].address)?];
        let lines = [(); 2].map(|()| Arc::new(Mutex::new(Line::new(quality))));
        let tally = Arc::new(Tally::default());
        let mut threads = Vec::new();
        let began = Instant::now();
        for (from, line) in lines.iter().enumerate() {
            let (sender, packets) = sync_channel(UNDER_WAY);
            let reader = Reader {
                device: devices[from].clone(),
                line: line.clone(),
                random: SmallRng::seed_from_u64(seed ^ from as u64),
                packets: sender,
                tally: tally.clone(),
                began,
            };
            threads.push(std::thread::spawn(move || {
                go_first();
                reader.run();
            }));
            let (device, tally) = (devices[1 - from].clone(), tally.clone());
            threads.push(std::thread::spawn(move || {
                go_first();
                deliver(&device, &packets, &tally, began);
            }));
        }
        Ok(Self { ends, lines, tally, threads })
    }

    /// The addresses of the two ends.
    pub fn addresses(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.ends[0].address, self.ends[1].address)
    }

    /// It behaves like this from now on, each way.
    pub fn set(&self, quality: Quality) {
        for line in &self.lines {
            line.lock().unwrap_or_else(PoisonError::into_inner).set(quality);
        }
    }

    /// Cuts it, or mends it.
    pub fn cut(&self, cut: bool) {
        for line in &self.lines {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            let quality = Quality { cut, ..line.quality() };
            line.set(quality);
        }
    }

    /// What happened to packets so far.
    ///
    /// # Errors
    /// When the system does not tell what the devices dropped.
    pub fn counts(&self) -> Result<Counts> {
        let mut hidden = self.tally.too_many.load(Ordering::Relaxed);
        for end in &self.ends {
            hidden += end.dropped()?;
        }
        Ok(Counts {
            arrived: self.tally.arrived.load(Ordering::Relaxed),
            lost: self.tally.lost.load(Ordering::Relaxed),
            overflow: self.tally.overflow.load(Ordering::Relaxed),
            hidden,
            latest: Duration::from_nanos(self.tally.latest.load(Ordering::Relaxed)),
        })
    }

    /// Forgets how late packets came so far.
    pub fn forget_latest(&self) {
        self.tally.latest.store(0, Ordering::Relaxed);
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // Threads that read a device end when it is gone; a namespace may have taken its own along.
        for end in &self.ends {
            ip(&format!("-n {} link del {}", end.namespace, end.device)).ok();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl End {
    fn open(&self, peer: Ipv4Addr) -> Result<Arc<SyncDevice>> {
        let Self { namespace, device: name, address } = self;
        let device = DeviceBuilder::new().name(name).layer(Layer::L3).build_sync();
        let device = device.with_context(|| format!("cannot make the TUN device {name}"))?;
        ip(&format!("link set {name} netns {namespace}"))?;
        // Room for what arrives while a thread is not running; it is empty otherwise.
        ip(&format!("-n {namespace} link set {name} mtu {MTU} txqueuelen 10000"))?;
        ip(&format!("-n {namespace} addr add {address} peer {peer} dev {name}"))?;
        ip(&format!("-n {namespace} link set {name} up"))?;
        Ok(Arc::new(device))
    }

    fn dropped(&self) -> Result<u64> {
        let text = ip_output(&format!("-n {} -s -j link show {}", self.namespace, self.device))?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        let count = shown[0]["stats64"]["tx"]["dropped"].as_u64();
        count.with_context(|| format!("`ip -s link` does not tell what {} dropped: {text}", self.device))
    }
}

/// Lets this thread run before all that is not as urgent, so that a busy machine does not make packets late. Where the
/// system refuses, [`Counts::latest`] tells what came of it.
fn go_first() {
    let own = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(thread) = own.file_name() {
        let chrt = Program::new("chrt").args(["--rr", "--pid", "10"]).arg(thread);
        chrt.run_blocking(Duration::from_secs(10)).ok();
    }
}

/// The address on the line of whoever has `address` on the network.
fn on_the_line(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b + 1, c, d)
}

struct Reader {
    device: Arc<SyncDevice>,
    line: Arc<Mutex<Line>>,
    random: SmallRng,
    packets: SyncSender<Packet>,
    tally: Arc<Tally>,
    began: Instant,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = [0; MTU + 64];
        while let Ok(length) = self.device.recv(&mut buffer) {
            let now = self.began.elapsed();
            let (chance, spread) = (self.random.random(), self.random.random());
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            let fate = line.enter(now, length, chance, spread);
            drop(line);
            match fate {
                Fate::Lost => self.tally.lost.fetch_add(1, Ordering::Relaxed),
                Fate::Overflow => self.tally.overflow.fetch_add(1, Ordering::Relaxed),
                Fate::Arrives(due) => {
                    match self.packets.try_send(Packet { bytes: buffer[..length].to_vec(), due }) {
                        Ok(()) => continue,
                        Err(_) => self.tally.too_many.fetch_add(1, Ordering::Relaxed),
                    }
                }
            };
        }
    }
}

fn deliver(device: &SyncDevice, packets: &Receiver<Packet>, tally: &Tally, began: Instant) {
    while let Ok(packet) = packets.recv() {
        let wait = packet.due.saturating_sub(began.elapsed());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let late = began.elapsed().saturating_sub(packet.due);
        tally.latest.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
        // What the other end does not want is its own affair, as on a real line.
        if device.send(&packet.bytes).is_ok() {
            tally.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
}
