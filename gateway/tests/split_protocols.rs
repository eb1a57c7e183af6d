//! A split port and clients that others wrote: h2spec, grpcurl, h2load and curl, over real sockets.
//!
//! A test whose client is not on the machine says so; `make tools` brings all but curl.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the real clock"
)]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/split.rs"]
mod split_pair;
#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkspan_core::api::split::Protocol;
use linkspan_tests::{Need, have, tools::tool};
use pair::Pair;
use split_pair::{APEX, Split};
use std::{convert::Infallible, net::SocketAddr, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// Time one client may take.
const CLIENT: Duration = Duration::from_secs(240);

/// What a client printed, and whether it ended well.
async fn run(program: &str, args: &[&str]) -> (bool, String) {
    let run =
        Command::new(tool(program).unwrap()).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(CLIENT, run).await.expect("the client took too long").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Waits until the apex is served, and says where.
async fn apex(pair: &Pair) -> SocketAddr {
    drop(pair.east.connect(APEX).await);
    SocketAddr::new(pair.east.egress, APEX)
}

/// Serves HTTP/1.1 and HTTP/2 with the name of the server as the answer.
async fn serve(listener: TcpListener, name: &'static str) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let answer = move |request: Request<Incoming>| async move {
            let name = if request.method() == Method::HEAD { "" } else { name };
            // Answered before, what is wrong with the rest of a request would go unsaid.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(name))))
        };
        tokio::spawn(async move {
            let mut first = [0; 3];
            let _ = tcp.peek(&mut first).await;
            let (io, service) = (TokioIo::new(tcp), service_fn(answer));
            // A client that goes away is no failure here.
            if first == *b"PRI" {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

async fn http() -> Pair {
    let (pair, local, west) = Split::start([80, 20], Protocol::Detect).await.take();
    tokio::spawn(serve(local, "here\n"));
    tokio::spawn(serve(west, "west\n"));
    pair
}

/// h2spec's cases that are not passed, with the reason.
///
/// A port that must tell HTTP/1.1, HTTP/2 and other protocols apart by the first bytes takes an invalid connection
/// preface for HTTP/1.1, and answers 400 in that protocol before it closes (RFC 9113, 3.4 allows closing only).
const H2SPEC_LEFT: &[&str] = &["Sends invalid connection preface"];

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_passes() {
    if !have(&[Need::Tool("h2spec")]) {
        return;
    }
    let pair = http().await;
    let at = apex(&pair).await;
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    // Some cases look at one frame only, and an answer may be under way already: what fails does so each time.
    let (mut unknown, mut told, mut runs) = (Vec::new(), String::new(), 0);
    while runs == 0 || (!unknown.is_empty() && runs < 3) {
        (_, told) = run("h2spec", &["-h", &ip, "-p", &port, "-o", "5"]).await;
        let failures = told.split("Failures:").nth(1).unwrap_or_default();
        let failed = failures.lines().map(str::trim).filter(|line| line.starts_with('×')).map(str::to_owned);
        let failed = failed.filter(|f| !H2SPEC_LEFT.iter().any(|known| f.contains(known)));
        unknown = failed.filter(|f| runs == 0 || unknown.contains(f)).collect();
        runs += 1;
    }
    assert!(unknown.is_empty(), "{unknown:?}\n{told}");
    let last = told.lines().rev().find(|l| l.contains(" tests, ")).unwrap_or_else(|| panic!("{told}"));
    println!("FIGURE: h2spec: {last}, run {runs}");
    let passed: usize = last.split(", ").find_map(|p| p.strip_suffix(" passed")).unwrap().parse().unwrap();
    assert!(passed >= 140, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_and_curl_get_every_answer() {
    if !have(&["h2load", "curl"].map(Need::Tool)) {
        return;
    }
    let pair = http().await;
    let url = format!("http://{}/", apex(&pair).await);
    for more in [&["-m", "20"][..], &["--h1"]] {
        let args = [&["-n", "2000", "-c", "4"][..], more, &[&url]].concat();
        let (well, told) = run("h2load", &args).await;
        let wanted = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(well && told.contains(wanted), "{told}");
    }
    let all = format!("{url}?[1-100]");
    let (well, told) = run("curl", &["-sS", "-m", "30", "--http1.1", &all]).await;
    let by = |name: &str| told.lines().filter(|line| *line == name).count();
    assert!(well && by("west") + by("here") == 100 && by("west").abs_diff(20) <= 2, "{told}");
    // curl 7.88 cannot use a connection twice with prior knowledge, whoever serves it.
    for _ in 0..10 {
        let (well, told) = run("curl", &["-sS", "-m", "30", "--http2-prior-knowledge", &url]).await;
        assert!(well && (told == "west\n" || told == "here\n"), "{told}");
    }
}

/// A gRPC server in place of a backend's listener; lives as long as the returned child.
async fn grpc(place: TcpListener, name: &str) -> Child {
    let address = place.local_addr().unwrap().to_string();
    drop(place);
    let mut child = Command::new(tool("grpc-server").unwrap())
        .args([&address, name])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    timeout(CLIENT, out.read_line(&mut line)).await.unwrap().unwrap();
    assert_eq!(line.trim(), address, "it listens");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_calls_streams_and_sees_errors_of_both_backends() {
    if !have(&["grpcurl", "grpc-server"].map(Need::Tool)) {
        return;
    }
    let (pair, local, west) = Split::start([1, 1], Protocol::Detect).await.take();
    let _servers = [grpc(local, "here").await, grpc(west, "west").await];
    let at = apex(&pair).await.to_string();
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/health.proto");
    let import = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
    let call = async |service: &str, method: &str, more: &[&str]| {
        let body = format!(r#"{{"service":"{service}"}}"#);
        let method = format!("grpc.health.v1.Health/{method}");
        let schema = ["-plaintext", "-import-path", import, "-proto", proto, "-d", &body];
        run("grpcurl", &[&schema[..], more, &[&at, &method]].concat()).await
    };
    // Each backend knows its own name only, and the other's is NOT_FOUND, in a trailer.
    let (mut found, mut missing) = (0, 0);
    for _ in 0..20 {
        let (well, told) = call("west", "Check", &["-max-time", "20"]).await;
        found += usize::from(well && told.contains("SERVING"));
        missing += usize::from(!well && told.contains("NotFound"));
    }
    println!("FIGURE: gRPC calls: {found} answered by west, {missing} by the pod here");
    assert_eq!((found, missing), (10, 10), "by weight, a call each");
    // A stream that the server never ends lives until its deadline, which is told as such: by the client, or by the
    // server, which was told the deadline as well and may be the first to see it.
    let (well, told) = call("", "Watch", &["-max-time", "2"]).await;
    let ended = told.contains("DeadlineExceeded") || told.contains("Stream has ended");
    assert!(!well && told.contains("SERVING") && ended, "{told}");
    // Reflection is a stream in both directions.
    let (well, told) = run("grpcurl", &["-plaintext", "-max-time", "20", &at, "list"]).await;
    assert!(well && told.contains("grpc.health.v1.Health"), "{told}");
}
