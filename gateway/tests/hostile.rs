//! Peers that do not behave: nothing gets through, nobody else is disturbed, memory stays bounded, nothing panics.
//! More of them are in `pair.rs`: no certificate, a foreign CA, an expired certificate, somebody else's, frames out of
//! order, a late RESET.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/process.rs"]
mod process;
#[path = "support/mod.rs"]
mod support;

use linkspan_gateway::{
    ingress::limits::Limits,
    mtls::credentials::Credentials,
    tunnel::{channel::Channel, dial::dial, peer_state::PeerState},
    wire::{Event, Frame, Open},
};
use pair::{DEADLINE, PORT, Pair, WEST, Wishes};
use process::{Process, own_host};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{certs::Authority, files::Files};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("took too long")
}

/// A connection from an address of this machine that nobody else uses.
async fn connect_from(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    socket.connect(to).await
}

/// A byte goes through both gateways and back.
async fn passes(client: &mut TcpStream, server: &mut TcpStream) {
    let both = async {
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        server.write_all(b"y").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    };
    soon(both).await;
}

async fn is_closed(tcp: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match tcp.read(&mut bytes).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

async fn metrics(admin: SocketAddr) -> String {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    text
}

/// Waits until the metric that begins with `name` is at least `least`.
async fn until_metric(admin: SocketAddr, name: &str, least: f64) -> f64 {
    let began = Instant::now();
    loop {
        let text = metrics(admin).await;
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().parse::<f64>().unwrap());
        match value {
            Some(value) if value >= least => return value,
            other => assert!(began.elapsed() < DEADLINE, "{name} is {other:?} in\n{text}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A tunnel connection to `to` with east's own certificate, driven by hand.
async fn by_hand(credentials: &Credentials, to: SocketAddr) -> Channel {
    let identity = WEST.parse().unwrap();
    let tls = Some(Arc::new(credentials.clients["west"].config(&identity).unwrap()));
    let peer = PeerState { addresses: vec![to], tls, identity, epoch: 1, problem: None };
    dial(&peer, 0).await.map(|dialed| dialed.channel).unwrap()
}

/// OPEN with any bytes as its target.
fn open_with(target: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 1, 1];
    body.extend((target.len() as u16).to_be_bytes());
    body.extend(target);
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame[0] = 1;
    frame.extend(body);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_tricks_reach_nothing() {
    let pair = Pair::start().await;
    let credentials = pair.east.tables.credentials.borrow().clone();
    let (long_label, long_name) = ("a".repeat(64) + ".default:8080", "a".repeat(15_000) + ".default:8080");
    let tricks: Vec<&[u8]> = vec![
        b"API.default:8080",
        b"api.Default:8080",
        b"api.default.:8080",
        b".api.default:8080",
        b"api..default:8080",
        b"api.default:8080.",
        b"api.default:8080 ",
        b" api.default:8080",
        b"api.default:8080\n",
        b"api.default\0:8080",
        b"api\0.default:8080",
        b"api.default:8080\0",
        "\u{430}pi.default:8080".as_bytes(),
        "api\u{3002}default:8080".as_bytes(),
        "api.default\u{200b}:8080".as_bytes(),
        b"../default:8080",
        b"..:8080",
        b"api.default/..:8080",
        b"api.default/../hidden.default:8080",
        b"api%2edefault:8080",
        b"api.default.svc.cluster.local:8080",
        b"api.default:08080",
        b"api.default:+8080",
        b"api.default:8080:8080",
        b"api.default:73616",
        b"api.default:-1",
        b"api.default:0x1f90",
        b"api.default",
        b":8080",
        b"",
        b"127.0.0.1:8080",
        b"[::1]:8080",
        b"api.default@hidden.default:8080",
        b"-api.default:8080",
        b"api-.default:8080",
        b"api.default:8080\xff",
        b"\xff\xfe",
        long_label.as_bytes(),
        long_name.as_bytes(),
    ];
    for trick in tricks {
        let shown = String::from_utf8_lossy(&trick[..trick.len().min(60)]).into_owned();
        let mut channel = by_hand(&credentials, pair.west.tunnel).await;
        channel.queue_encoded(&open_with(trick));
        channel.flush().await.unwrap();
        // What is no target is no OPEN: the connection ends, and nothing is opened before.
        let end = soon(async {
            loop {
                match channel.event().await {
                    Ok(event) => assert!(!matches!(event, Event::Frame(Frame::Opened { .. })), "{shown:?}"),
                    Err(e) => break e,
                }
            }
        });
        end.await;
    }
    let nobody = timeout(Duration::from_millis(200), pair.backend.accept()).await;
    assert!(nobody.is_err(), "a trick reached the backend");
    let (mut client, mut server) = soon(pair.flow()).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_broken_handshakes_are_cut_and_disturb_nobody() {
    let limits = Limits { max_handshakes_per_address: 8, ..Limits::default() };
    let pair = Pair::start_as(Wishes { limits, ..Wishes::default() }).await;
    let (attacker, began) = ("127.66.0.1", Instant::now());
    // A record that announces more than ever comes, half a ClientHello, and silence.
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut slow = Vec::new();
    for (i, bytes) in [&b""[..], hello, &[0x16], &[0x16, 3, 1, 0x40, 0]].iter().cycle().take(8).enumerate() {
        let mut tcp = connect_from(attacker, pair.west.tunnel).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        if i % 4 == 1 {
            // The end comes right after.
            tcp.shutdown().await.unwrap();
        }
        slow.push(tcp);
    }
    // One more from there is turned away at once; others get through.
    let mut turned_away = JoinSet::new();
    for _ in 0..8 {
        let tunnel = pair.west.tunnel;
        turned_away.spawn(async move {
            match connect_from(attacker, tunnel).await {
                Ok(mut tcp) => is_closed(&mut tcp).await,
                Err(_) => true,
            }
        });
    }
    until_metric(
        pair.west.admin,
        "linkspan_inbound_rejected_total{limit=\"max-handshakes-per-address\"}",
        1.0,
    )
    .await;
    let (mut client, mut server) = soon(pair.flow()).await;
    passes(&mut client, &mut server).await;
    for mut tcp in slow {
        assert!(soon(is_closed(&mut tcp)).await);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    println!("slow handshakes were cut after {took:?}");
    while let Some(closed) = soon(turned_away.join_next()).await {
        assert!(closed.unwrap());
    }
    until_metric(pair.west.admin, "linkspan_inbound_handshakes_total{result=\"timeout\"}", 6.0).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_is_turned_away_and_flows_go_on() {
    let limits = Limits { handshake_rate_per_address: 50, ..Limits::default() };
    let pair = Pair::start_as(Wishes { limits, ..Wishes::default() }).await;
    let (mut client, mut server) = soon(pair.flow()).await;
    let tunnel = pair.west.tunnel;
    let flood = tokio::spawn(async move {
        for i in 0..1500u32 {
            if let Ok(mut tcp) = connect_from("127.66.0.2", tunnel).await {
                let bytes = if i % 2 == 0 { &b"GET / HTTP/1.1\r\n\r\n"[..] } else { &[0xff; 100] };
                // Whether it is reset before or after does not matter.
                let _ = tcp.write_all(bytes).await;
            }
        }
    });
    let mut slowest = Duration::ZERO;
    while !flood.is_finished() {
        let began = Instant::now();
        passes(&mut client, &mut server).await;
        slowest = slowest.max(began.elapsed());
    }
    flood.await.unwrap();
    let limit = "linkspan_inbound_rejected_total{limit=\"handshake-rate-per-address\"}";
    let rejected = until_metric(pair.west.admin, limit, 500.0).await;
    println!("{rejected} of 1,500 were turned away; the slowest exchange of another's flow took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let (mut client, mut server) = soon(pair.flow()).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_flows_and_no_more() {
    let limits = Limits { max_flows_per_peer: 2, ..Limits::default() };
    let pair = Pair::start_as(Wishes { limits, ..Wishes::default() }).await;
    let (first, mut second) = (soon(pair.flow()).await, soon(pair.flow()).await);
    let began = Instant::now();
    let mut third = pair.east.connect(PORT).await;
    let error = soon(third.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let denied = "linkspan_denied_total{direction=\"inbound\",link=\"east\",namespace=\"default\",service=\"api\",port=\"8080\",reason=\"limit\"}";
    until_metric(pair.west.admin, denied, 1.0).await;
    passes(&mut second.0, &mut second.1).await;
    drop(first);
    let open = "tcp_open_connections{direction=\"inbound\",link=\"east\",namespace=\"default\",service=\"api\",port=\"8080\"}";
    let began = Instant::now();
    while metrics(pair.west.admin).await.contains(&format!("{open} 2\n")) {
        assert!(began.elapsed() < DEADLINE, "the flow that ended is still counted");
        sleep(Duration::from_millis(20)).await;
    }
    let (mut client, mut server) = soon(pair.flow()).await;
    passes(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_flow_is_ended_and_a_busy_one_is_not() {
    let idle_timeout = Duration::from_secs(2);
    let limits = Limits { idle_timeout, ..Limits::default() };
    let pair = Pair::start_as(Wishes { limits, ..Wishes::default() }).await;
    let (mut idle, mut busy) = (soon(pair.flow()).await, soon(pair.flow()).await);
    passes(&mut idle.0, &mut idle.1).await;
    let began = Instant::now();
    let ended = async {
        let error = idle.0.read(&mut [0]).await.unwrap_err();
        (error.kind(), began.elapsed())
    };
    let work = async {
        loop {
            passes(&mut busy.0, &mut busy.1).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let (kind, took) = tokio::select! {
        ended = ended => ended,
        () = work => unreachable!("it never ends"),
    };
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    assert!(took >= idle_timeout && took < idle_timeout * 5, "{took:?}");
    println!("with an idle timeout of {idle_timeout:?} an idle flow ended after {took:?}");
    passes(&mut busy.0, &mut busy.1).await;
}

/// A listener whose queue is full, so that further connections get no answer.
async fn black_hole() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(tcp)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        held.push(tcp);
    }
    (listener, address, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_silent_or_refuses_is_passed_over_and_then_left_out() {
    let pair = Pair::start().await;
    let (_listener, silent, _held) = black_hole().await;
    let refusing = "127.0.0.1:1".parse().unwrap();
    pair.west.set_endpoints(&[silent, refusing, pair.backend.local_addr().unwrap()]);
    let mut times = Vec::new();
    for _ in 0..40 {
        let began = Instant::now();
        let (mut client, mut server) = soon(pair.flow()).await;
        passes(&mut client, &mut server).await;
        times.push(began.elapsed());
    }
    let slowest = times.iter().max().unwrap();
    let delayed = times.iter().filter(|t| **t > Duration::from_millis(200)).count();
    println!("40 flows past a silent and a refusing endpoint: slowest {slowest:?}, {delayed} were delayed");
    assert!(*slowest < Duration::from_millis(1500), "{slowest:?}");
    assert!(delayed <= 3, "{times:?}");
    let retries = "linkspan_retries_total{direction=\"inbound\",link=\"east\",namespace=\"default\",service=\"api\",port=\"8080\"}";
    until_metric(pair.west.admin, retries, 1.0).await;
    until_metric(pair.west.admin, "linkspan_endpoints_ejected", 1.0).await;
    // With nothing but the silent one, the flow is refused within a second.
    pair.west.set_endpoints(&[silent]);
    let mut client = pair.east.connect(PORT).await;
    let began = Instant::now();
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    println!("a flow to a silent endpoint alone was reset after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_what_goes_go_too() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    passes(&mut client, &mut server).await;
    let (of_service, of_account) = ("service=\"api\"", "link=\"east\"");
    let text = metrics(pair.west.admin).await;
    assert!(
        text.contains(of_service) && text.contains("linkspan_inbound_connections{link=\"east\"}"),
        "{text}"
    );
    let until_gone = async |admin, what: &str| {
        let began = Instant::now();
        loop {
            let text = metrics(admin).await;
            if !text.contains(what) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "{what} stays in\n{text}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    // The live flow ends by this, and its counters with it.
    pair.west.set_export(false);
    until_gone(pair.west.admin, of_service).await;
    pair.west.set_account(None);
    pair.east.tables.links.update(|links| links.remove("west"));
    until_gone(pair.west.admin, of_account).await;
    pair.east.tables.ports.update(|ports| ports.set("default", "api-west", None));
    until_gone(pair.east.admin, of_service).await;
}

/// A gateway process that exports a backend which reads nothing, and what its caller needs.
async fn exporting(files: &Files) -> (Process, Credentials, TcpListener) {
    let (west, east) = (Authority::new("west"), Authority::new("east"));
    let server = west.gateway("linkspan");
    files.write("server.crt", &server.cert_pem);
    files.write("server.key", &server.key_pem);
    files.write("own-ca.crt", &west.pem());
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "server: {{ certificate: server.crt, key: server.key, bundle: own-ca.crt }}\n\
         accounts: [{{ name: east, uid: uid-1 }}]\n\
         services: [{{ name: api.default, ports: [{{ port: 8080, endpoints: [\"{}\"] }}] }}]\n",
        backend.local_addr().unwrap(),
    );
    let (path, log) = (files.write("gateway.yaml", &config), std::fs::File::create(files.path().join("log")));
    let process = Process::start_from(&path, &own_host(), &[], log.unwrap().into());
    let began = Instant::now();
    while TcpStream::connect(process.at(4143)).await.is_err() {
        assert!(began.elapsed() < DEADLINE, "the gateway does not start");
        sleep(Duration::from_millis(20)).await;
    }
    let client = west.client("linkspan", "east", "uid-1");
    let credentials = Credentials::read(&pair::texts(&east, &west, client));
    (process, credentials, backend)
}

/// Sends `frame` over and over without ever reading, for `time`.
async fn flood(mut channel: Channel, frame: Vec<u8>, time: Duration) {
    let _ = timeout(time, async {
        loop {
            channel.queue_encoded(&frame);
            if channel.flush().await.is_err() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_whatever_callers_send() {
    const MIB: u64 = 1024;
    let files = Files::new("memory");
    let (process, credentials, backend) = exporting(&files).await;
    let tunnel = process.at(4143);
    // Warm: what every thread keeps for itself is there.
    for _ in 0..50 {
        by_hand(&credentials, tunnel).await.close();
    }
    let before = process.memory();
    // Strangers: plaintext, garbage, records that never end.
    let mut strangers = JoinSet::new();
    for i in 0..200u8 {
        strangers.spawn(async move {
            let mut tcp = connect_from(&format!("127.67.0.{}", 1 + i % 100), tunnel).await?;
            let head: &[u8] =
                if i % 2 == 0 { &[0x16, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff] } else { b"GET /" };
            tcp.write_all(head).await?;
            for _ in 0..256 {
                tcp.write_all(&[i; 4096]).await?;
            }
            Ok::<_, std::io::Error>(tcp)
        });
    }
    while strangers.join_next().await.is_some() {}
    let after_strangers = process.memory();
    // Callers with a good certificate: PINGs whose answers are not read, frames nobody knows, data without a flow, and
    // data for a backend that reads nothing.
    let mut ping = Vec::from([7, 0, 0, 8]);
    ping.extend([0; 8]);
    let mut unknown = Vec::from([99, 0, 0x40, 0]);
    unknown.extend([0; 0x4000]);
    let mut data = Vec::from([4, 0, 0x40, 0]);
    data.extend([0; 0x4000]);
    let open = Frame::Open(Open {
        generation: 1,
        hops: 1,
        target: "api.default:8080".parse().unwrap(),
        baggage: "x".repeat(16_000),
        opened_may_wait: false,
    });
    let (mut floods, time) = (JoinSet::new(), Duration::from_secs(2));
    for i in 0..40 {
        let mut channel = by_hand(&credentials, tunnel).await;
        let frame = match i % 4 {
            0 => ping.repeat(500),
            1 => unknown.clone(),
            2 => data.clone(),
            _ => {
                channel.queue(&open).unwrap();
                data.clone()
            }
        };
        floods.spawn(flood(channel, frame, time));
    }
    let mut peak = 0;
    while !floods.is_empty() {
        peak = peak.max(process.memory());
        if timeout(Duration::from_millis(50), floods.join_next()).await.is_ok() {
            continue;
        }
    }
    println!(
        "memory in KiB: before {before}, after 200 strangers {after_strangers}, at most {peak} under 40 floods of callers"
    );
    assert!(after_strangers < before + 16 * MIB, "{before} KiB grew to {after_strangers} KiB");
    assert!(peak < before + 48 * MIB, "{before} KiB grew to {peak} KiB");
    // It still serves.
    drop(backend.accept().await.unwrap());
    let mut channel = by_hand(&credentials, tunnel).await;
    channel.queue(&Frame::Ping { token: 9 }).unwrap();
    channel.flush().await.unwrap();
    let pong = Frame::Pong { token: 9, identity: WEST.to_owned() };
    assert_eq!(soon(channel.event()).await.unwrap(), Event::Frame(pong));
    let log = std::fs::read_to_string(files.path().join("log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    let lines = log.lines().filter(|line| line.contains("not carried")).count();
    println!("{lines} lines in the log");
    assert!(lines > 0 && lines < 100, "{log}");
}
