//! Pairs of gateways under load and under changes: what is carried stays whole, and nobody waits for somebody else.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/content.rs"]
mod content;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tcp.rs"]
mod tcp;

use content::{check_content, check_prefix, send_content};
use linkspan_core::api::{
    gateway_report::Event as Report,
    link::{LinkSettings, ProbeSettings},
    reason::Reason,
    slice::SliceRoute,
};
use linkspan_gateway::{
    egress::port_table::SliceRow,
    tunnel::{dial::dial, link_table::LinkRow, peer_state::PeerState},
};
use pair::{DEADLINE, PORT, Pair, WEST};
use rustls::{NamedGroup, ProtocolVersion};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tcp::soon;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

/// Carries TCP from a port of its own to another one.
struct Relay {
    address: SocketAddr,
    carrying: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Relay {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, carrying) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let all = carrying.clone();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let one = tokio::spawn(async move {
                    let mut other = TcpStream::connect(to).await.unwrap();
                    // However it ends.
                    let _ = copy_bidirectional(&mut tcp, &mut other).await;
                });
                all.lock().unwrap().push(one);
            }
        });
        Self { address, carrying }
    }

    /// Ends all connections there are; none of them carries anything any more when this returns.
    async fn cut(&self) {
        let all = std::mem::take(&mut *self.carrying.lock().unwrap());
        for one in all {
            one.abort();
            // It was aborted.
            let _ = one.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_takes_another_connection_when_its_own_died_before_it_began() {
    let pair = Pair::start().await;
    let relay = Relay::start(pair.west.tunnel).await;
    pair.east.set_link(relay.address, WEST);
    let address = relay.address.to_string();
    pair.east.until(|health| health.alive == Some(true) && health.addresses == [address.clone()]).await;
    for round in 0..50 {
        relay.cut().await;
        // The server speaks first: nothing was sent that could have had an effect twice.
        let mut client = pair.east.connect(PORT).await;
        let (mut server, _) = soon(pair.backend.accept()).await.unwrap();
        server.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        let read = soon(client.read_exact(&mut bytes)).await;
        assert!(read.is_ok() && bytes == *b"hello", "round {round}: {read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_addresses_take_new_flows_while_old_ones_go_on() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    let relay = Relay::start(pair.west.tunnel).await;
    pair.east.set_link(relay.address, WEST);
    let address = relay.address.to_string();
    pair.east.until(|health| health.alive == Some(true) && health.addresses == [address.clone()]).await;
    let (mut next, mut next_server) = soon(pair.flow()).await;
    for (from, to) in [(&mut client, &mut server), (&mut next, &mut next_server)] {
        from.write_all(b"x").await.unwrap();
        let mut byte = [0; 1];
        soon(to.read_exact(&mut byte)).await.unwrap();
    }
    // The new one goes by the new address, the old one does not.
    relay.cut().await;
    let mut byte = [0; 1];
    assert!(soon(next.read(&mut byte)).await.is_err());
    client.write_all(b"y").await.unwrap();
    soon(server.read_exact(&mut byte)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_clients_are_told_why() {
    let pair = Pair::start().await;
    let port = 10_100;
    let hidden = BTreeMap::from([(port, "hidden.default:80".parse().unwrap())]);
    let route = SliceRoute { link: "west".to_owned(), ports: hidden };
    let row = SliceRow {
        created: String::new(),
        route,
        ready_pods: BTreeSet::new(),
        http: BTreeSet::from([port]),
        split: None,
    };
    pair.east.tables.ports.update(|table| table.set("default", "hidden-west", Some(row)));
    let mut client = soon(pair.east.connect(port)).await;
    let began = Instant::now();
    client.write_all(b"GET / HTTP/1.1\r\nHost: hidden\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert!(answer.contains("\r\nlinkspan-reason: not-exported\r\n"), "{answer}");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    // Whoever asks nothing is reset, as ever.
    let mut silent = soon(pair.east.connect(port)).await;
    let error = soon(silent.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Reads nothing for longer than the longest silence of a connection that is alive, while the other end sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_rests_loses_nothing_and_stalls_nobody() {
    const TOTAL: usize = 48 * 1024 * 1024;
    let pair = Pair::start().await;
    let (mut resting, mut server) = soon(pair.flow()).await;
    let (mut both, mut both_server) = soon(pair.flow()).await;
    let rest = linkspan_gateway::tunnel::pulse::SILENCE * 2;
    let all = async {
        tokio::join!(
            send_content(&mut server, 1, TOTAL),
            async {
                // Others are quick meanwhile.
                let until = Instant::now() + rest;
                while Instant::now() < until {
                    let began = Instant::now();
                    let (mut client, mut server) = pair.flow().await;
                    client.write_all(b"x").await.unwrap();
                    server.read_exact(&mut [0; 1]).await.unwrap();
                    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                check_content(&mut resting, 1, TOTAL).await;
            },
            async {
                // Both ends send and neither reads.
                let (client_read, client_write) = both.split();
                let (server_read, server_write) = both_server.split();
                let later = Instant::now() + rest;
                tokio::join!(
                    send_content(client_write, 2, TOTAL),
                    send_content(server_write, 3, TOTAL),
                    async {
                        tokio::time::sleep_until(later).await;
                        check_content(server_read, 2, TOTAL).await;
                    },
                    async {
                        tokio::time::sleep_until(later).await;
                        check_content(client_read, 3, TOTAL).await;
                    },
                );
            },
        )
    };
    timeout(DEADLINE * 2, all).await.expect("took too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_flow_arrives_whole() {
    large_flow(1 << 28).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: run it with --ignored"]
async fn a_flow_of_ten_gigabytes_arrives_whole() {
    large_flow(10 << 30).await;
}

async fn large_flow(total: usize) {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    let began = Instant::now();
    let all = async {
        tokio::join!(send_content(&mut server, 9, total), check_content(&mut client, 9, total));
    };
    timeout(DEADLINE * 20, all).await.expect("took too long");
    println!("{total} bytes: {:?}", began.elapsed());
}

/// Echoes what comes on each connection, and its end.
fn echo(backend: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        while let Ok((mut tcp, _)) = backend.accept().await {
            tasks.spawn(async move {
                let (mut read, mut write) = tcp.split();
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    // The client may be gone already.
                    let _ = write.shutdown().await;
                }
            });
            while tasks.try_join_next().is_some() {}
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_flows_each_get_their_answer() {
    short_flows(3000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run it with --ignored"]
async fn a_hundred_thousand_short_flows_each_get_their_answer() {
    short_flows(100_000).await;
}

async fn short_flows(total: usize) {
    let Pair { east, west, backend, .. } = Pair::start().await;
    let echo = echo(backend);
    let mut callers = JoinSet::new();
    let address = SocketAddr::new(east.egress, PORT);
    drop(east.connect(PORT).await);
    let began = Instant::now();
    for caller in 0..20 {
        callers.spawn(async move {
            for round in 0..total / 20 {
                let text = format!("caller {caller} round {round}");
                let mut tcp = TcpStream::connect(address).await.unwrap();
                tcp.write_all(text.as_bytes()).await.unwrap();
                tcp.shutdown().await.unwrap();
                let mut answer = String::new();
                tcp.read_to_string(&mut answer).await.unwrap();
                assert_eq!(answer, text);
            }
        });
    }
    while let Some(done) = timeout(DEADLINE * 10, callers.join_next()).await.expect("took too long") {
        done.unwrap();
    }
    println!("{total} short flows: {:?}", began.elapsed());
    echo.abort();
    drop((east, west));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_flows_stay_and_work_when_they_are_needed() {
    let (total, began) = (300, Instant::now());
    let Pair { east, west, backend, .. } = Pair::start().await;
    let echo = echo(backend);
    let mut flows = Vec::new();
    for _ in 0..total {
        let mut tcp = east.connect(PORT).await;
        tcp.write_all(b"a").await.unwrap();
        soon(tcp.read_exact(&mut [0; 1])).await.unwrap();
        flows.push(tcp);
    }
    println!("{total} idle flows: {:?}", began.elapsed());
    for tcp in &mut flows {
        tcp.write_all(b"again").await.unwrap();
        let mut bytes = [0; 5];
        soon(tcp.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"again");
    }
    println!("{total} flows used again: {:?}", began.elapsed());
    echo.abort();
    drop((east, west));
}

/// How one end of a random flow behaves.
#[derive(Clone, Copy, Debug)]
struct Manner {
    sends: usize,
    /// Resets the connection after having received so many bytes.
    resets_after: Option<usize>,
    /// Half-closes only once the other end has.
    ends_last: bool,
}

fn manner(dice: &mut u64) -> Manner {
    let mut throw = |sides: u64| {
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % sides
    };
    let sends = if throw(3) == 0 { throw(2_000_000) } else { throw(5000) } as usize;
    let resets_after = (throw(4) == 0).then(|| throw(20_000) as usize);
    Manner { sends, resets_after, ends_last: throw(2) == 0 }
}

/// Plays one end; returns how many bytes it got, all of them as they should be, and whether they ended in order.
async fn play(mut tcp: TcpStream, manner: Manner, ours: u64, theirs: u64) -> (usize, bool) {
    let (mut read, mut write) = tcp.split();
    let (heard_end, mut has_heard_end) = watch::channel(false);
    let sending = async {
        if manner.ends_last {
            let half = manner.sends / 2;
            content::send_part(&mut write, ours, 0, half).await?;
            // An error is the end as well.
            let _ = has_heard_end.wait_for(|ended| *ended).await;
            content::send_part(&mut write, ours, half, manner.sends).await?;
        } else {
            content::send_part(&mut write, ours, 0, manner.sends).await?;
        }
        write.shutdown().await
    };
    let receiving = async {
        let got = check_prefix(&mut read, theirs, manner.resets_after.unwrap_or(usize::MAX)).await;
        heard_end.send_replace(true);
        got
    };
    // A broken connection is told once: to whoever writes, or to whoever reads, who then sees a mere end.
    let (sent, (got, ended)) = match manner.resets_after {
        None => tokio::join!(sending, receiving),
        // Whoever resets does not finish what it sends.
        Some(_) => tokio::select! {
            got = receiving => (Ok(()), got),
            sent = sending => (sent, (0, false)),
        },
    };
    if manner.resets_after.is_some() {
        tcp.set_zero_linger().unwrap();
    }
    (got, ended && sent.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_ends_and_resets_never_make_a_part_look_whole() {
    let Pair { east, west, backend, .. } = Pair::start().await;
    let east = Arc::new(east);
    let mut dice = u64::from(std::process::id());
    println!("seed {dice}");
    for _ in 0..300 {
        let (client, server) = (manner(&mut dice), manner(&mut dice));
        // Both send half and wait for the other's end: that would be for ever.
        let server = Manner { ends_last: server.ends_last && !client.ends_last, ..server };
        let flow = async {
            let ours = east.connect(PORT).await;
            let (theirs, _) = backend.accept().await.unwrap();
            let ours = tokio::spawn(play(ours, client, 1, 2));
            let theirs = tokio::spawn(play(theirs, server, 2, 1));
            (ours.await.unwrap(), theirs.await.unwrap())
        };
        let ((client_got, client_ended), (server_got, server_ended)) = soon(flow).await;
        for (got, ended, sent) in [(client_got, client_ended, server), (server_got, server_ended, client)] {
            assert!(got <= sent.sends);
            assert!(!ended || got == sent.sends, "{got} bytes ended in order: {client:?} {server:?}");
        }
        if client.resets_after.is_none() && server.resets_after.is_none() {
            assert!(client_ended && server_ended, "{client:?} {server:?}");
        }
    }
    drop((east, west));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_to_ourselves_or_nowhere_says_so() {
    let pair = Pair::start().await;
    pair.east.set_link(pair.east.tunnel, WEST);
    let health = pair.east.until(|health| health.alive == Some(false)).await;
    assert_eq!(health.reason, Some(Reason::WrongCluster), "{health:?}");
    pair.east.set_link(pair.west.tunnel, WEST);
    pair.east.until(|health| health.alive == Some(true)).await;
    let settings = LinkSettings {
        gateway_hosts: vec!["no-such-gateway.invalid".to_owned()],
        gateway_port: 4143,
        gateway_identity: WEST.parse().unwrap(),
        probe: ProbeSettings::default(),
    };
    pair.east.tables.links.update(|links| links.set("west", Ok(LinkRow::new(settings, &[]))));
    let health = pair.east.until(|health| health.alive == Some(false)).await;
    assert_eq!(health.reason, Some(Reason::Dns), "{health:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_agree_on_a_key_exchange_that_outlasts_quantum_computers() {
    let pair = Pair::start().await;
    let client = pair.east.tables.credentials.borrow().clients["west"].clone();
    let identity = WEST.parse().unwrap();
    let tls = Some(Arc::new(client.config(&identity).unwrap()));
    let peer = PeerState { addresses: vec![pair.west.tunnel], tls, identity, epoch: 1, problem: None };
    let channel = dial(&peer, 0).await.map(|dialed| dialed.channel).unwrap();
    let state = channel.tls().state();
    assert_eq!(state.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = state.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
}

/// The ports of east that accept connections, and those that cannot be bound.
fn ports(pair: &Pair) -> (Vec<u16>, Vec<u16>) {
    let lines = String::from_utf8(pair.east.board.lines().to_vec()).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut ports = events.filter_map(|event| match event {
        Report::Ports { bound, failed } => Some((bound, failed.iter().map(|one| one.port).collect())),
        _ => None,
    });
    ports.next_back().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_and_go_and_one_that_is_taken_is_named_and_tried_again() {
    let pair = Pair::start().await;
    let (mut client, mut server) = soon(pair.flow()).await;
    let taken = 10_200;
    let squatter = TcpListener::bind((pair.east.egress, taken)).await.unwrap();
    let targets = BTreeMap::from([(taken, "api.default:8080".parse().unwrap())]);
    let route = SliceRoute { link: "west".to_owned(), ports: targets };
    let row = SliceRow {
        created: String::new(),
        route,
        ready_pods: BTreeSet::new(),
        http: BTreeSet::new(),
        split: None,
    };
    pair.east.tables.ports.update(|table| table.set("default", "more-west", Some(row)));
    let until = async |wanted: &dyn Fn(&[u16], &[u16]) -> bool| {
        let began = Instant::now();
        loop {
            let (bound, failed) = ports(&pair);
            if wanted(&bound, &failed) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "bound {bound:?}, failed {failed:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(&|bound, failed| bound.contains(&PORT) && failed == [taken]).await;
    drop(squatter);
    until(&|bound, failed| bound.contains(&taken) && failed.is_empty()).await;
    let mut other = soon(pair.east.connect(taken)).await;
    let (mut other_server, _) = soon(pair.backend.accept()).await.unwrap();
    pair.east.tables.ports.update(|table| table.set("default", "more-west", None));
    until(&|bound, _| !bound.contains(&taken)).await;
    // Flows of the port that went go on, and nobody else notices anything.
    for (from, to) in [(&mut client, &mut server), (&mut other, &mut other_server)] {
        from.write_all(b"x").await.unwrap();
        soon(to.read_exact(&mut [0; 1])).await.unwrap();
    }
    let refused = TcpStream::connect((pair.east.egress, taken)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    soon(pair.flow()).await;
}
