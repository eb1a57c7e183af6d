//! Two gateway processes, configured by files.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/process.rs"]
mod process;
#[path = "support/site.rs"]
mod site;
#[path = "support/mod.rs"]
mod support;

use process::{Process, exchange, until};
use site::{SERVER, Site, called, calling};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};
use support::files::Files;

#[test]
fn a_flow_crosses_two_processes_and_a_signal_ends_them_in_order() {
    let (east, west) = (Site::new("east"), Site::new("west"));
    east.write_client(&west.ca);
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
    let mut west = Process::start(&west.files, &west.host, &called(backend_address));
    let mut east = Process::start(&east.files, &east.host, &calling(&west.host));
    let answer = until(|| exchange(east.at(10_007)));
    assert_eq!(answer, "west heard ping");
    for process in [&mut east, &mut west] {
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = until(|| process.child.try_wait().unwrap().ok_or_else(|| "still running".to_owned()));
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

/// A backend that answers each request with `name`.
fn http_backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            std::thread::spawn(move || {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                for line in BufReader::new(tcp.try_clone().unwrap()).lines() {
                    if line.is_ok_and(|line| line.is_empty()) && tcp.write_all(head.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The body of one answer.
fn ask(to: &mut BufReader<TcpStream>) -> Result<String, String> {
    let told = |e: std::io::Error| e.to_string();
    to.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").map_err(told)?;
    let (mut line, mut length, mut status) = (String::new(), 0, String::new());
    while line != "\r\n" {
        line.clear();
        to.read_line(&mut line).map_err(told)?;
        if status.is_empty() {
            status.clone_from(&line);
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().map_err(|e| format!("{line:?}: {e}"))?;
        }
        if line.is_empty() {
            return Err("an answer was cut off".to_owned());
        }
    }
    let mut body = vec![0; length];
    to.read_exact(&mut body).map_err(told)?;
    if status.contains(" 200 ") { Ok(String::from_utf8_lossy(&body).into_owned()) } else { Err(status) }
}

#[test]
fn a_split_in_a_file_shares_out_the_requests_of_one_connection() {
    let (east, west) = (Site::new("east"), Site::new("west"));
    east.write_client(&west.ca);
    let service = |name: &str, backend: SocketAddr| {
        format!("- {{ name: {name}.default, ports: [{{ port: 80, endpoints: [\"{backend}\"] }}] }}\n")
    };
    let services = [service("web", http_backend("web")), service("canary", http_backend("canary"))].concat();
    let accounts = "accounts: [{ name: east, uid: uid-1 }]\nservices:\n";
    let _called = Process::start(&west.files, &west.host, &format!("{SERVER}{accounts}{services}"));
    let split = "splits:\n- name: web.default\n  port: 10008\n  protocol: http\n  backends:\n  \
                 - { name: web-west, peer: west, target: \"web.default:80\", weight: 3 }\n  \
                 - { name: canary-west, peer: west, target: \"canary.default:80\", weight: 1 }\n";
    let calling = Process::start(&east.files, &east.host, &format!("{}{split}", calling(&west.host)));
    let mut client = until(|| {
        let tcp = TcpStream::connect(calling.at(10_008)).map_err(|e| e.to_string())?;
        tcp.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
        let mut client = BufReader::new(tcp);
        ask(&mut client).map(|_| client)
    });
    let answers: Vec<String> = (0..8).map(|_| ask(&mut client).unwrap()).collect();
    let canary = answers.iter().filter(|answer| *answer == "canary").count();
    assert_eq!((canary, answers.len() - canary), (2, 6), "{answers:?}");
}
