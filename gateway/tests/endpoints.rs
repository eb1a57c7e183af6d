//! Which of a Service's endpoints a flow reaches: the pod that was asked for, one of the own zone, one that answers.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tcp.rs"]
mod tcp;

use linkspan_core::api::{labels::GATEWAY, slice::SliceRoute};
use linkspan_gateway::{
    egress::port_table::SliceRow as PortRow,
    ingress::service_table::{Endpoint, ServicePort, ServiceRow, SliceRow},
};
use pair::{PORT, Pair};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tcp::{pass_byte, read_end, soon, until_reset};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};

/// A flow that cannot be carried ends within a second; the rest is what a busy machine takes.
const A_SECOND: Duration = Duration::from_millis(1500);

/// An endpoint of the Service as slices tell of it.
struct Pod<'a> {
    address: SocketAddr,
    hostname: Option<&'a str>,
    zone: Option<&'a str>,
}

fn pod(address: SocketAddr) -> Pod<'static> {
    Pod { address, hostname: None, zone: None }
}

/// West's Service has these pods, and west's gateway is in `zone`.
fn set_pods(pair: &Pair, pods: &[Pod<'_>], zone: &str) {
    let slices = pods.iter().map(|pod| {
        let endpoint = Endpoint {
            ip: pod.address.ip(),
            hostname: pod.hostname.map(str::to_owned),
            ready: true,
            serving_while_terminating: false,
            for_zones: pod.zone.map(str::to_owned).into_iter().collect(),
        };
        let ports = vec![(String::new(), pod.address.port())];
        let row =
            SliceRow { service: "api".to_owned(), ports, endpoints: vec![endpoint], ..SliceRow::default() };
        (("default".to_owned(), format!("api-{}", pod.address)), row)
    });
    let zones = BTreeMap::from([("gateway-1".to_owned(), zone.to_owned())]);
    let gateways = SliceRow { service: GATEWAY.to_owned(), zones, ..SliceRow::default() };
    let gateways = (("linkspan".to_owned(), "gateways".to_owned()), gateways);
    pair.west.tables.services.update(|services| {
        services.reset_slices(slices.chain([gateways]));
        true
    });
}

/// East's `port` leads to `target`, whose clients speak HTTP if `http`.
fn set_port(pair: &Pair, port: u16, target: &str, http: bool) {
    let ports = BTreeMap::from([(port, target.parse().unwrap())]);
    let route = SliceRoute { link: "west".to_owned(), ports };
    let http = http.then_some(port).into_iter().collect();
    let row = PortRow { created: String::new(), route, ready_pods: BTreeSet::new(), http, split: None };
    pair.east.tables.ports.update(|table| table.set("default", &format!("west-{port}"), Some(row)));
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An endpoint that neither accepts a connection nor refuses it: the queue of its listener is full.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Silent {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
        while let Ok(Ok(tcp)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queued.push(tcp);
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_pod_reaches_that_pod_and_no_other() {
    let pair = Pair::start().await;
    let pods = [listen().await, listen().await, listen().await];
    let names = ["api-0", "api-1", "api-2"];
    let row = ServiceRow {
        ports: vec![ServicePort { name: String::new(), port: 8080 }],
        headless: true,
        ..ServiceRow::default()
    };
    pair.west.tables.update_exports(|services| services.set_service("default", "api", Some(row)));
    let all: Vec<_> = pods
        .iter()
        .zip(names)
        .map(|((_, address), name)| Pod { address: *address, hostname: Some(name), zone: None })
        .collect();
    set_pods(&pair, &all, "a");
    for (number, name) in names.iter().enumerate() {
        set_port(&pair, 10_100 + number as u16, &format!("{name}.api.default:8080"), false);
    }
    set_port(&pair, 10_110, "api-3.api.default:8080", false);
    for round in 0..20 {
        let number = round % pods.len();
        let mut client = soon(pair.east.connect(10_100 + number as u16)).await;
        let accepted = soon(async {
            tokio::select! {
                one = pods[0].0.accept() => (0, one),
                one = pods[1].0.accept() => (1, one),
                one = pods[2].0.accept() => (2, one),
            }
        });
        let (reached, server) = accepted.await;
        assert_eq!(reached, number, "round {round}: the flow for {} came elsewhere", names[number]);
        pass_byte(&mut client, &mut server.unwrap().0).await;
    }
    until_reset(&mut soon(pair.east.connect(10_110)).await).await;
    // One pod that is gone is not stood in for by another.
    set_pods(&pair, &all[1..], "a");
    until_reset(&mut soon(pair.east.connect(10_100)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_meant_for_the_zone_have_all_flows_while_they_answer() {
    let pair = Pair::start().await;
    let ((near, near_address), (far, far_address)) = (listen().await, listen().await);
    let meant = |zone| Pod { zone: Some(zone), ..pod(if zone == "a" { near_address } else { far_address }) };
    set_pods(&pair, &[meant("b"), meant("a")], "a");
    let reached = async || {
        let mut client = soon(pair.east.connect(PORT)).await;
        let (zone, server) = soon(async {
            tokio::select! {
                one = near.accept() => ("a", one),
                one = far.accept() => ("b", one),
            }
        })
        .await;
        pass_byte(&mut client, &mut server.unwrap().0).await;
        zone
    };
    for _ in 0..30 {
        assert_eq!(reached().await, "a");
    }
    set_pods(&pair, &[meant("b"), meant("a")], "b");
    for _ in 0..30 {
        assert_eq!(reached().await, "b");
    }
    // A hint is no wall: where nobody of the zone answers, others do.
    let (gone, gone_address) = listen().await;
    drop(gone);
    set_pods(&pair, &[Pod { zone: Some("a"), ..pod(gone_address) }, meant("b")], "a");
    for _ in 0..5 {
        assert_eq!(reached().await, "b");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_endpoints_cost_a_flow_a_second_at_most() {
    let pair = Pair::start().await;
    let silent = [Silent::start().await, Silent::start().await, Silent::start().await, Silent::start().await];
    let silent: Vec<_> = silent.iter().map(|one| pod(one.address)).collect();
    set_port(&pair, 10_100, "api.default:8080", true);
    set_pods(&pair, &silent, "a");
    // Nobody answers: the flow is refused, and an HTTP client is told.
    let mut client = soon(pair.east.connect(PORT)).await;
    let began = Instant::now();
    until_reset(&mut client).await;
    assert!(began.elapsed() < A_SECOND, "{:?}", began.elapsed());
    let mut client = soon(pair.east.connect(10_100)).await;
    let began = Instant::now();
    client.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(read_end(&mut client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nlinkspan-reason: no-endpoints\r\n"), "{answer}");
    assert!(began.elapsed() < A_SECOND, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_is_found_among_silent_ones() {
    let pair = Pair::start().await;
    let silent = [Silent::start().await, Silent::start().await, Silent::start().await];
    let mut all: Vec<_> = silent.iter().map(|one| pod(one.address)).collect();
    // The silent ones are tried first.
    all.iter_mut().for_each(|one| one.zone = Some("a"));
    let (listener, address) = listen().await;
    all.push(pod(address));
    set_pods(&pair, &all, "a");
    for round in 0..5 {
        let began = Instant::now();
        let mut client = soon(pair.east.connect(PORT)).await;
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        pass_byte(&mut client, &mut server).await;
        assert!(began.elapsed() < A_SECOND, "round {round}: {:?}", began.elapsed());
    }
    // Those that were silent are tried last from now on.
    let began = Instant::now();
    let mut client = soon(pair.east.connect(PORT)).await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    pass_byte(&mut client, &mut server).await;
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}
