//! A gateway process follows its configuration file and the files that it names.
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
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use support::certs::Authority;

/// A backend that answers whatever it hears, each connection at once and when it ends.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(n) = tcp.read(&mut bytes)
                    && n > 0
                    && tcp.write_all(&bytes[..n]).is_ok()
                {}
            });
        }
    });
    address
}

/// A client with a flow on which something has come back.
fn flow(to: SocketAddr) -> TcpStream {
    until(|| {
        let mut tcp = TcpStream::connect(to).map_err(|e| e.to_string())?;
        tcp.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
        say(&mut tcp)?;
        Ok(tcp)
    })
}

fn say(tcp: &mut TcpStream) -> Result<(), String> {
    tcp.write_all(b"x").map_err(|e| e.to_string())?;
    tcp.read_exact(&mut [0]).map_err(|e| e.to_string())
}

#[test]
fn a_changed_file_is_followed_and_a_bad_one_is_not() {
    let (east, west) = (Site::new("east"), Site::new("west"));
    east.write_client(&west.ca);
    let good = called(backend());
    let called = Process::start(&west.files, &west.host, &good);
    let calling = Process::start(&east.files, &east.host, &calling(&west.host));
    let port = calling.at(10_007);
    let mut live = flow(port);
    // A bad file: told with its line, and everything goes on.
    west.replace(&good.replace("port: 8080", "port: eight"));
    let told = until(|| {
        let config = called.admin("GET", "/config")?;
        if config.contains("\"problem\":null") { Err(config) } else { Ok(config) }
    });
    assert!(told.contains("gateway.yaml") && told.contains("line 3"), "{told}");
    say(&mut live).unwrap();
    assert_eq!(until(|| exchange(port)), "ping");
    // Good again, written over in place.
    west.files.write("gateway.yaml", &good);
    until(|| {
        let config = called.admin("GET", "/config")?;
        if config.contains("\"problem\":null") { Ok(()) } else { Err(config) }
    });
    say(&mut live).unwrap();
    // The Service goes: its live flow ends, and no other begins.
    let began = Instant::now();
    west.replace(&format!("{SERVER}accounts: [{{ name: east, uid: uid-1 }}]\n"));
    let error = live.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    println!("a flow of a Service that went from the file ended after {:?}", began.elapsed());
    assert!(exchange(port).is_err());
    // It comes back, and a denied serial number ends the flow again.
    west.replace(&good);
    let mut live = flow(port);
    let serials: Vec<String> = (1000..1100).map(|n| format!("'{n:x}'")).collect();
    let denied = format!("own-ca.crt, deniedSerials: [{}] }}", serials.join(", "));
    west.replace(&good.replace("own-ca.crt }", &denied));
    assert_eq!(live.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_volume_whose_link_is_swapped_is_followed_with_its_certificates() {
    let (east, west) = (Site::new("east-volume"), Site::new("west"));
    east.write_client(&west.ca);
    // As the kubelet does: each name is a link by way of `..data`, which is swapped as a whole.
    let mount: PathBuf = west.files.path().join("mount");
    let fill = |version: &str, ca: &Authority, backend: SocketAddr| {
        let folder = mount.join(version);
        fs::create_dir_all(&folder).unwrap();
        let server = ca.gateway("linkspan");
        for (name, text) in [
            ("server.crt", server.cert_pem),
            ("server.key", server.key_pem),
            ("own-ca.crt", west.ca.pem() + &ca.pem()),
            ("gateway.yaml", called(backend)),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    fill("..1", &west.ca, backend());
    for name in ["server.crt", "server.key", "own-ca.crt", "gateway.yaml"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let called = Process::start_from(&mount.join("gateway.yaml"), &west.host, &[], Stdio::inherit());
    let calling = Process::start(&east.files, &east.host, &calling(&west.host));
    let port = calling.at(10_007);
    let mut live = flow(port);
    // Another CA, another backend: who trusts only the old CA calls in vain, who trusts the new one gets through.
    let (other, second) = (Authority::new("west"), TcpListener::bind("127.0.0.1:0").unwrap());
    fill("..2", &other, second.local_addr().unwrap());
    fs::remove_dir_all(mount.join("..1")).unwrap();
    let client = other.client("linkspan", "east", "uid-1");
    east.files.write("client.crt", &client.cert_pem);
    east.files.write("client.key", &client.key_pem);
    east.files.write("west-ca.crt", &other.pem());
    std::thread::spawn(move || {
        for tcp in second.incoming() {
            let _ = tcp.unwrap().write_all(b"the second backend");
        }
    });
    assert_eq!(
        until(|| exchange(port).and_then(|a| if a == "ping" { Err(a) } else { Ok(a) })),
        "the second backend"
    );
    // What was open stays open.
    say(&mut live).unwrap();
    drop(called);
}

#[test]
fn what_is_logged_changes_at_run_time_and_is_json_when_asked() {
    let site = Site::new("log");
    let log = site.files.path().join("log");
    let path = site.files.write("gateway.yaml", SERVER);
    let flags = ["--log-format", "json", "--log-level", "warn"];
    let process = Process::start_from(&path, &site.host, &flags, fs::File::create(&log).unwrap().into());
    let told = until(|| process.admin("GET", "/log-level"));
    assert!(told.ends_with("warn\n"), "{told}");
    assert!(until(|| process.admin("GET", "/ready")).starts_with("HTTP/1.1 200"));
    let refused = process.admin("PUT", "/log-level?info,=,").unwrap();
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("use error, warn"), "{refused}");
    let changed = process.admin("PUT", "/log-level?info,linkspan_gateway=debug").unwrap();
    assert!(changed.starts_with("HTTP/1.1 200"), "{changed}");
    // Somebody knocks in vain, which is told now.
    TcpStream::connect(process.at(4143)).unwrap().write_all(&[0; 64]).unwrap();
    until(|| {
        let text = fs::read_to_string(&log).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).map_err(|e| format!("{line}: {e}"))?;
        }
        let told = |word: &str| text.contains(word);
        if told("log level changed") && told("not carried") { Ok(()) } else { Err(text) }
    });
}
