//! Gateway processes, configured by files.
#![allow(dead_code, reason = "each test program uses a part of this")]

use crate::support::files::Files;
use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static NEXT: AtomicU8 = AtomicU8::new(200);

/// An address of this machine that no other test uses.
pub(crate) fn own_host() -> String {
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    format!("127.{}.{b}.{}", a | 1, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A gateway process, killed when the test ends.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) host: String,
}

impl Process {
    /// Starts one with `config`, which is written to `gateway.yaml`.
    pub(crate) fn start(files: &Files, host: &str, config: &str) -> Self {
        Self::start_from(&files.write("gateway.yaml", config), host, &[], Stdio::inherit())
    }

    /// Starts one with the configuration at `path` and more flags.
    pub(crate) fn start_from(path: &Path, host: &str, flags: &[&str], log: Stdio) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_linkspan-gateway"))
            .args(["--listen", &format!("{host}:4143"), "--admin-addr", &format!("{host}:9999")])
            .args(["--egress-addr", host, "--config"])
            .arg(path)
            .args(flags)
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, host: host.to_owned() }
    }

    /// An address of this gateway.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.host).parse().unwrap()
    }

    /// Asks the admin page; head and body of the answer.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Result<String, String> {
        let mut tcp = TcpStream::connect(self.at(9999)).map_err(|e| e.to_string())?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        let mut text = String::new();
        tcp.read_to_string(&mut text).map_err(|e| e.to_string())?;
        Ok(text)
    }

    /// Memory in use, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let mut text = String::new();
        let path = format!("/proc/{}/status", self.child.id());
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until it works; each failure is kept for the message.
pub(crate) fn until<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(e) => assert!(began.elapsed() < DEADLINE, "last: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says `ping` and hears the answer.
pub(crate) fn exchange(address: SocketAddr) -> Result<String, String> {
    let mut tcp = TcpStream::connect(address).map_err(|e| e.to_string())?;
    tcp.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    tcp.write_all(b"ping").map_err(|e| e.to_string())?;
    tcp.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    if answer.is_empty() { Err("an empty answer".to_owned()) } else { Ok(answer) }
}
