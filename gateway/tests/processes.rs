//! Two gateway processes, configured by files.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/process.rs"]
mod process;
#[path = "support/mod.rs"]
mod support;

use process::{Process, exchange, own_host, until};
use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
};
use support::{certs::Authority, files::Files};

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
    let (east_host, west_host) = (own_host(), own_host());
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
