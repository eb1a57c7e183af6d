//! Two gateway processes, configured by files.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    time::{Duration, Instant},
};
use support::{certs::Authority, files::Files};

const DEADLINE: Duration = Duration::from_secs(60);

/// A gateway process, killed when the test ends.
struct Process(Child);

impl Process {
    fn start(files: &Files, host: &str, config: &str) -> Self {
        let path = files.write("gateway.yaml", config);
        let child = Command::new(env!("CARGO_BIN_EXE_linkspan-gateway"))
            .args(["--listen", &format!("{host}:4143"), "--admin-addr", &format!("{host}:9999")])
            .args(["--egress-addr", host, "--config"])
            .arg(path)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until it works; each failure is kept for the message.
fn until<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(e) => assert!(began.elapsed() < DEADLINE, "last: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn exchange(address: SocketAddr) -> Result<String, String> {
    let mut tcp = TcpStream::connect(address).map_err(|e| e.to_string())?;
    tcp.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    tcp.write_all(b"ping").map_err(|e| e.to_string())?;
    tcp.shutdown(std::net::Shutdown::Write).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    Ok(answer)
}

#[test]
fn a_flow_crosses_two_processes_and_a_signal_ends_them_in_order() {
    let (east_ca, west_ca) = (Authority::new("east"), Authority::new("west"));
    let (east_files, west_files) = (Files::new("east"), Files::new("west"));
    for (files, own) in [(&east_files, &east_ca), (&west_files, &west_ca)] {
        let server = own.gateway("linkspan");
        files.write("server.crt", &server.cert_pem);
        files.write("server.key", &server.key_pem);
        files.write("own-ca.crt", &own.pem());
    }
    let client = west_ca.client("linkspan", "east", "uid-1");
    east_files.write("client.crt", &client.cert_pem);
    east_files.write("client.key", &client.key_pem);
    east_files.write("west-ca.crt", &west_ca.pem());
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend_address = backend.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in backend.incoming() {
            let mut tcp = tcp.unwrap();
            let mut text = String::new();
            tcp.read_to_string(&mut text).unwrap();
            tcp.write_all(format!("west heard {text}").as_bytes()).unwrap();
        }
    });
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let (east_host, west_host) = (format!("127.{}.{b}.201", a | 1), format!("127.{}.{b}.202", a | 1));
    let server = "server: { certificate: server.crt, key: server.key, bundle: own-ca.crt }";
    let mut west = Process::start(
        &west_files,
        &west_host,
        &format!(
            "{server}\naccounts: [{{ name: east, uid: uid-1 }}]\n\
             services: [{{ name: api.default, ports: [{{ port: 8080, endpoints: [\"{backend_address}\"] }}] }}]\n"
        ),
    );
    let mut east = Process::start(
        &east_files,
        &east_host,
        &format!(
            "{server}\npeers:\n- name: west\n  addresses: [\"{west_host}:4143\"]\n  \
             identity: spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway\n  \
             certificate: client.crt\n  key: client.key\n  bundle: west-ca.crt\n\
             listeners: [{{ port: 10007, peer: west, target: \"api.default:8080\" }}]\n"
        ),
    );
    let port: SocketAddr = format!("{east_host}:10007").parse().unwrap();
    let answer =
        until(|| exchange(port).and_then(|a| if a.is_empty() { Err("empty".into()) } else { Ok(a) }));
    assert_eq!(answer, "west heard ping");
    for process in [&mut east, &mut west] {
        let pid = process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = until(|| process.0.try_wait().unwrap().ok_or_else(|| "still running".to_owned()));
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let files = Files::new("refused");
    let path = files.write("gateway.yaml", "server: {}\nlistners: []\n");
    let output =
        Command::new(env!("CARGO_BIN_EXE_linkspan-gateway")).arg("--config").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("gateway.yaml") && text.contains("line"), "{text}");
}
