//! Pairs of gateways over real sockets: what is carried, what is refused, and what ends.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tcp.rs"]
mod tcp;
use support::certs;

use bytes::BytesMut;
use linkspan_core::api::{credentials::DENIED_SERIALS, gateway_report::Event as Report, reason::Reason};
use linkspan_gateway::{
    mtls::credentials::Credentials,
    tunnel::{dial::dial, peer_state::PeerState},
    wire::{Event, Frame, Open, data_header},
};
use pair::{DEADLINE, Gateway, HIDDEN_PORT, PORT, Pair, WEST, Wishes, texts};
use std::{sync::Arc, time::Duration};
use support::certs::Authority;
use tcp::{admin, metric, read_end, read_exact, soon, until_reset};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_half_closes_pass_both_ways() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(read_exact(&mut server, 8).await, b"question");
    client.shutdown().await.unwrap();
    assert_eq!(read_end(&mut server).await, b"");
    server.write_all(b"answer after the end of the question").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_end(&mut client).await, b"answer after the end of the question");
    // The other way round, and the server speaks first.
    let (mut client, mut server) = soon(pair.flow()).await;
    server.write_all(b"220 welcome").await.unwrap();
    assert_eq!(read_exact(&mut client, 11).await, b"220 welcome");
    server.shutdown().await.unwrap();
    assert_eq!(read_end(&mut client).await, b"");
    client.write_all(b"still here").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_end(&mut server).await, b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_on_either_side_reaches_the_other() {
    let pair = Pair::start().await;
    for _ in 0..20 {
        let (client, mut server) = soon(pair.flow()).await;
        client.set_zero_linger().unwrap();
        drop(client);
        until_reset(&mut server).await;
        let (mut client, server) = soon(pair.flow()).await;
        server.set_zero_linger().unwrap();
        drop(server);
        until_reset(&mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_after_its_half_close_stops_the_server() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    client.write_all(b"all of it, please").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_end(&mut server).await, b"all of it, please");
    let flood = tokio::spawn(async move {
        let bytes = vec![7; 64 * 1024];
        while server.write_all(&bytes).await.is_ok() {}
    });
    read_exact(&mut client, 1_000_000).await;
    client.set_zero_linger().unwrap();
    drop(client);
    soon(flood).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_still_notices_the_end() {
    let pair = Pair::start().await;
    let (mut client, server) = soon(pair.flow()).await;
    // Fill everything up to where nobody takes anything any more.
    let bytes = vec![7; 64 * 1024];
    while timeout(Duration::from_millis(500), client.write_all(&bytes)).await.is_ok() {}
    client.set_zero_linger().unwrap();
    drop(client);
    // The flow's end is seen on the other side although the server reads nothing.
    let error = soon(server.ready(tokio::io::Interest::ERROR)).await;
    assert!(error.is_ok());
}

/// Pseudo-random content of any length.
struct Content(u64);

impl Content {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&(self.0 ^ (self.0 >> 29)).to_le_bytes()[..chunk.len()]);
        }
    }
}

async fn send_content(mut to: impl AsyncWriteExt + Unpin, seed: u64, total: usize) {
    let (mut content, mut bytes) = (Content(seed), vec![0; 256 * 1024]);
    for _ in 0..total / bytes.len() {
        content.fill(&mut bytes);
        to.write_all(&bytes).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn check_content(mut from: impl AsyncReadExt + Unpin, seed: u64, total: usize) {
    let (mut content, mut expected, mut found) = (Content(seed), vec![0; 256 * 1024], vec![0; 256 * 1024]);
    for i in 0..total / expected.len() {
        content.fill(&mut expected);
        from.read_exact(&mut found).await.unwrap();
        assert!(expected == found, "block {i} differs");
    }
    assert_eq!(from.read(&mut found).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_flow_arrives_whole_in_both_directions_at_once() {
    const TOTAL: usize = 256 * 1024 * 1024;
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let began = Instant::now();
    let all = async {
        tokio::join!(
            send_content(client_write, 1, TOTAL),
            check_content(server_read, 1, TOTAL),
            send_content(server_write, 2, TOTAL),
            check_content(client_read, 2, TOTAL),
        )
    };
    timeout(DEADLINE * 5, all).await.expect("took too long");
    println!("256 MiB each way at once: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_short_flows_share_a_few_connections() {
    let Pair { east, west, backend, .. } = Pair::start().await;
    let echo = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        loop {
            let (mut tcp, _) = backend.accept().await.unwrap();
            tasks.spawn(async move {
                let (mut read, mut write) = tcp.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let (east, began) = (Arc::new(east), Instant::now());
    let mut callers = JoinSet::new();
    for caller in 0..10u32 {
        let east = east.clone();
        callers.spawn(async move {
            for round in 0..100u32 {
                let mut tcp = east.connect(PORT).await;
                let text = format!("caller {caller} round {round}");
                tcp.write_all(text.as_bytes()).await.unwrap();
                tcp.shutdown().await.unwrap();
                assert_eq!(read_end(&mut tcp).await, text.as_bytes());
            }
        });
    }
    while let Some(done) = soon(callers.join_next()).await {
        done.unwrap();
    }
    println!("1,000 short flows, 10 at a time: {:?}", began.elapsed());
    let metrics = admin(&east, "/metrics").await;
    let dials = metric(&metrics, "linkspan_tunnel_dials_total{link=\"west\",result=\"ok\"}").unwrap();
    assert!(dials < 200.0, "{dials} connections for 1,000 flows");
    let opened = "tcp_open_total{direction=\"outbound\",link=\"west\",namespace=\"default\",service=\"api\",port=\"8080\"}";
    assert_eq!(metric(&metrics, opened), Some(1000.0));
    echo.abort();
    drop(west);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_exported_is_refused_within_a_second() {
    let pair = Pair::start().await;
    let mut client = soon(pair.east.connect(HIDDEN_PORT)).await;
    let began = Instant::now();
    until_reset(&mut client).await;
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    // A connection that is reset at once may look refused to the client, which then makes another: both are counted.
    let counted = async || {
        // West names no Service that it does not export.
        let inbound = "linkspan_denied_total{direction=\"inbound\",link=\"east\",namespace=\"\",service=\"\",port=\"0\",reason=\"not-exported\"}";
        let outbound = "linkspan_denied_total{direction=\"outbound\",link=\"west\",namespace=\"default\",service=\"hidden\",port=\"8080\",reason=\"not-exported\"}";
        let (west, east) = (admin(&pair.west, "/metrics").await, admin(&pair.east, "/metrics").await);
        (metric(&west, inbound), metric(&east, outbound))
    };
    soon(async {
        loop {
            let (inbound, outbound) = counted().await;
            if inbound.is_some() && inbound == outbound {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    pair.west.set_endpoints(&[]);
    until_reset(&mut soon(pair.east.connect(PORT)).await).await;
    let (mut client, _) = {
        pair.west.set_endpoints(&["127.0.0.1:1".parse().unwrap(), pair.backend.local_addr().unwrap()]);
        soon(pair.flow()).await
    };
    client.write_all(b"the endpoint that refuses was passed over").await.unwrap();
}

/// Opens a flow, does something to west, and expects the flow to be cut.
async fn cut_by(change: impl Fn(&Pair)) {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    client.write_all(b"x").await.unwrap();
    read_exact(&mut server, 1).await;
    let began = Instant::now();
    change(&pair);
    until_reset(&mut client).await;
    until_reset(&mut server).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until_reset(&mut soon(pair.east.connect(PORT)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unexport_cuts_a_live_flow() {
    cut_by(|pair| pair.west.set_export(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_cuts_a_live_flow_also_when_made_anew() {
    cut_by(|pair| pair.west.set_account(None)).await;
    cut_by(|pair| pair.west.set_account(Some("uid-2"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_serial_cuts_a_live_flow() {
    cut_by(|pair| {
        let mut texts = pair.west_texts.clone();
        texts.trust.as_mut().unwrap().insert(DENIED_SERIALS.to_owned(), pair.client_serial.clone());
        pair.west.tables.credentials.send_replace(Arc::new(Credentials::read(&texts)));
    })
    .await;
}

/// The reason east's link is dead for, when it shows `client` to west and expects `identity`.
async fn refused(make: impl Fn(&Authority, &Authority) -> certs::Leaf, identity: &str) -> Reason {
    let (east_ca, west_ca) = (Authority::new("east"), Authority::new("west"));
    let west = Gateway::start(&texts(&west_ca, &east_ca, east_ca.client("linkspan", "west", "x"))).await;
    west.set_account(Some("uid-1"));
    let east = Gateway::start(&texts(&east_ca, &west_ca, make(&east_ca, &west_ca))).await;
    east.set_ports();
    east.set_link(west.tunnel, identity);
    let health = east.until(|health| health.alive == Some(false)).await;
    until_reset(&mut soon(east.connect(PORT)).await).await;
    health.reason.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_prove_who_it_is_reaches_nothing() {
    let foreign = refused(|east, _| east.client("linkspan", "east", "uid-1"), WEST).await;
    assert_eq!(foreign, Reason::TlsTrust);
    let expired = refused(|_, west| west.expired_client("linkspan", "east", "uid-1"), WEST).await;
    assert_eq!(expired, Reason::TlsExpired);
    let other_account = refused(|_, west| west.client("linkspan", "north", "uid-1"), WEST).await;
    assert_eq!(other_account, Reason::Identity);
    let other_uid = refused(|_, west| west.client("linkspan", "east", "uid-0"), WEST).await;
    assert_eq!(other_uid, Reason::Identity);
    let other_domain =
        refused(|_, west| west.leaf(&["spiffe://north.linkspan/ns/linkspan/sa/east"]), WEST).await;
    assert_eq!(other_domain, Reason::Identity);
    let north = "spiffe://north.linkspan/ns/linkspan/sa/linkspan-gateway";
    let wrong_cluster = refused(|_, west| west.client("linkspan", "east", "uid-1"), north).await;
    assert_eq!(wrong_cluster, Reason::WrongCluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_garbage_and_no_certificate_get_nothing() {
    let pair = Pair::start().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 100]] {
        let mut tcp = TcpStream::connect(pair.west.tunnel).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // At most an alert comes back, then the end.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
        assert!(answer.len() < 64, "{answer:?}");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let own = pair.west_texts.trust.as_ref().unwrap()["own-bundle.crt"].clone();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(own.as_bytes()).unwrap()).unwrap();
    let verifier =
        linkspan_gateway::mtls::verify::GatewayVerifier::new(roots, WEST.parse().unwrap(), provider.clone());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"linkspan/1".to_vec()];
    let peer = PeerState {
        addresses: vec![pair.west.tunnel],
        tls: Some(Arc::new(config)),
        identity: WEST.parse().unwrap(),
        epoch: 1,
        problem: None,
    };
    let error = dial(&peer, 0).await.err().expect("nobody is let in without a certificate");
    assert_eq!(error.reason, Reason::Identity, "{error}");
    let (mut client, mut server) = soon(pair.flow()).await;
    client.write_all(b"others are not disturbed").await.unwrap();
    read_exact(&mut server, 24).await;
}

/// A tunnel connection to west, driven by hand.
async fn by_hand(pair: &Pair) -> linkspan_gateway::tunnel::channel::Channel {
    let client = pair.east.tables.credentials.borrow().clients["west"].clone();
    let identity = WEST.parse().unwrap();
    let tls = Some(Arc::new(client.config(&identity).unwrap()));
    let peer = PeerState { addresses: vec![pair.west.tunnel], tls, identity, epoch: 1, problem: None };
    dial(&peer, 0).await.map(|dialed| dialed.channel).unwrap()
}

fn open(generation: u32, hops: u8, target: &str) -> Frame {
    let (target, baggage) = (target.parse().unwrap(), String::new());
    Frame::Open(Open { generation, hops, target, baggage, opened_may_wait: false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reset_does_not_hit_the_next_flow() {
    let pair = Pair::start().await;
    let mut channel = by_hand(&pair).await;
    channel.queue(&open(1, 1, "api.default:8080")).unwrap();
    channel.queue(&Frame::Fin { generation: 1 }).unwrap();
    channel.flush().await.unwrap();
    let (mut server, _) = soon(pair.backend.accept()).await.unwrap();
    assert_eq!(read_end(&mut server).await, b"");
    drop(server);
    while soon(channel.event()).await.unwrap() != Event::Frame(Frame::Done { generation: 1 }) {}
    let late = Frame::Reset { generation: 1, reason: Reason::Internal };
    channel.queue(&late).unwrap();
    channel.queue(&open(2, 1, "api.default:8080")).unwrap();
    channel.queue(&late).unwrap();
    let mut data = BytesMut::from(&data_header(5)[..]);
    data.extend_from_slice(b"alive");
    channel.queue_encoded(&data);
    channel.flush().await.unwrap();
    let (mut server, _) = soon(pair.backend.accept()).await.unwrap();
    assert_eq!(read_exact(&mut server, 5).await, b"alive");
    server.write_all(b"and well").await.unwrap();
    while soon(channel.event()).await.unwrap() != Event::Data("and well".into()) {}
    channel.queue(&Frame::Reset { generation: 2, reason: Reason::Internal }).unwrap();
    channel.flush().await.unwrap();
    until_reset(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tricks_of_a_caller_with_a_good_certificate_reach_nothing() {
    let pair = Pair::start().await;
    let mut channel = by_hand(&pair).await;
    for (generation, hops, target, reason) in [
        (1, 2, "api.default:8080", Reason::Policy),
        (2, 1, "hidden.default:8080", Reason::NotExported),
        (3, 1, "api.default:8081", Reason::NotExported),
        (4, 1, "pod.api.default:8080", Reason::NotExported),
    ] {
        channel.queue(&open(generation, hops, target)).unwrap();
        channel.flush().await.unwrap();
        let refused = Event::Frame(Frame::Refused { generation, reason });
        assert_eq!(soon(channel.event()).await.unwrap(), refused);
        assert_eq!(soon(channel.event()).await.unwrap(), Event::Frame(Frame::Done { generation }));
    }
    // The connection is of use still; an OPEN that is too long ends it.
    channel.queue(&Frame::Ping { token: 5 }).unwrap();
    channel.flush().await.unwrap();
    let pong = Frame::Pong { token: 5, identity: WEST.to_owned() };
    assert_eq!(soon(channel.event()).await.unwrap(), Event::Frame(pong));
    channel.queue_encoded(&[1, 0, 0x40, 1]);
    channel.flush().await.unwrap();
    assert!(soon(channel.event()).await.is_err());
    // Data after the end of a flow's data, and a flow within a flow.
    for frames in [vec![Frame::Fin { generation: 1 }], vec![open(2, 1, "api.default:8080")]] {
        let mut channel = by_hand(&pair).await;
        channel.queue(&open(1, 1, "api.default:8080")).unwrap();
        for frame in frames {
            channel.queue(&frame).unwrap();
        }
        channel.queue_encoded(&[4, 0, 0, 1, 7]);
        channel.flush().await.unwrap();
        let (mut server, _) = soon(pair.backend.accept()).await.unwrap();
        until_reset(&mut server).await;
        soon(async { while channel.event().await.is_ok() {} }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_gateway_is_seen_and_comes_back() {
    let pair = Pair::start().await;
    let admin_lines = admin(&pair.east, "/links").await;
    let lines: Vec<Report> = admin_lines
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(
        matches!(&lines[0], Report::State { draining: false, links } if links["west"].latency_ms.is_some())
    );
    assert!(
        matches!(&lines[1], Report::Ports { bound, failed } if bound == &[PORT, HIDDEN_PORT] && failed.is_empty())
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    pair.east.set_link(address, WEST);
    let health = pair.east.until(|health| health.alive == Some(false)).await;
    assert_eq!(health.reason, Some(Reason::Timeout), "{health:?}");
    drop(silent);
    pair.east.until(|health| health.reason == Some(Reason::Refused)).await;
    pair.east.set_link(pair.west.tunnel, WEST);
    pair.east.until(|health| health.alive == Some(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_leaves_says_so_and_lets_flows_finish() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    client.write_all(b"before").await.unwrap();
    read_exact(&mut server, 6).await;
    pair.west.stop.start();
    soon(async {
        let mut stream = TcpStream::connect(pair.west.admin).await.unwrap();
        stream.write_all(b"GET /links?watch HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !text.contains("\"draining\":true") {
            let n = stream.read(&mut bytes).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    })
    .await;
    client.write_all(b"after").await.unwrap();
    assert_eq!(read_exact(&mut server, 5).await, b"after");
    client.shutdown().await.unwrap();
    assert_eq!(read_end(&mut server).await, b"");
    server.write_all(b"bye").await.unwrap();
    drop(server);
    assert_eq!(read_end(&mut client).await, b"bye");
    soon(pair.west.task).await.unwrap().unwrap();
    pair.east.until(|health| health.alive == Some(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_cut_because_its_gateway_leaves_gives_back_no_connection() {
    let pair = Pair::start_as(Wishes { flows: Duration::from_millis(200), ..Wishes::default() }).await;
    let mut channel = by_hand(&pair).await;
    channel.queue(&open(1, 1, "api.default:8080")).unwrap();
    channel.flush().await.unwrap();
    let (_server, _) = soon(pair.backend.accept()).await.unwrap();
    pair.west.stop.start();
    let (mut said, done) = (Vec::new(), Frame::Done { generation: 1 });
    while said.last() != Some(&done) {
        if let Event::Frame(frame) = soon(channel.event()).await.unwrap() {
            said.push(frame);
        }
    }
    let cut = Frame::Reset { generation: 1, reason: Reason::Draining };
    assert!(said.ends_with(&[Frame::GoAway, cut, done]), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_when_its_account_does() {
    let pair = Pair::start().await;
    let mut channel = by_hand(&pair).await;
    channel.queue(&Frame::Ping { token: 1 }).unwrap();
    channel.flush().await.unwrap();
    let pong = Event::Frame(Frame::Pong { token: 1, identity: WEST.to_owned() });
    while soon(channel.event()).await.unwrap() != pong {}
    // What has no say in it changes nothing.
    pair.west.set_export(false);
    channel.queue(&Frame::Ping { token: 2 }).unwrap();
    channel.flush().await.unwrap();
    assert!(soon(channel.event()).await.is_ok());
    pair.west.set_account(None);
    assert!(soon(channel.event()).await.is_err() && channel.was_closed());
}
