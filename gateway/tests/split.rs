//! A split over real sockets: one backend in this cluster, one behind a tunnel; what clients of each protocol see.
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
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::TE};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkspan_core::{api::split::Protocol, process::clock::Clock};
use pair::{DEADLINE, Pair, Wishes};
use split_pair::{APEX, Split};
use std::{convert::Infallible, io::ErrorKind, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("took too long")
}

/// Serves HTTP at both backends; each names itself.
fn serve_http(split: Split, two: bool) -> Pair {
    let (pair, local, west) = split.take();
    tokio::spawn(serve(local, "here", two));
    tokio::spawn(serve(west, "west", two));
    pair
}

async fn serve(listener: TcpListener, name: &'static str, two: bool) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, name));
            let io = TokioIo::new(tcp);
            // A client that goes away is no failure here.
            if two {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(io, service)
                    .with_upgrades()
                    .await;
            }
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

/// Answers who it is, what it was asked, and the body it was sent; its digest comes as a trailer.
async fn answer(mut request: Request<Incoming>, name: &'static str) -> Result<Response<Body>, Infallible> {
    let mut response = Response::builder().header("served-by", name).header("path", request.uri().path());
    for (key, value) in request.headers() {
        response = response.header(format!("got-{key}"), value);
    }
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 5];
            io.read_exact(&mut bytes).await.unwrap();
            bytes.reverse();
            io.write_all(&bytes).await.unwrap();
        });
        let switched = response.status(101).header("connection", "upgrade").header("upgrade", "echo");
        return Ok(switched.body(Empty::new().map_err(|e| match e {}).boxed()).unwrap());
    }
    let body = request.into_body().collect().await.unwrap();
    let told = body.trailers().and_then(|t| t.get("x-sum")).cloned();
    let bytes = body.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-length", HeaderValue::from(bytes.len()));
    if let Some(told) = told {
        trailers.insert("x-told", told);
    }
    let frames = futures::stream::iter([Ok(Frame::data(bytes)), Ok(Frame::trailers(trailers))]);
    let response = response.header("trailer", "x-length, x-told").header("keep-alive", "timeout=5");
    Ok(response.body(BodyExt::boxed(StreamBody::new(frames))).unwrap())
}

fn by(response: &Response<Incoming>) -> &str {
    response.headers()["served-by"].to_str().unwrap()
}

async fn client<B>(pair: &Pair) -> http1::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static,
{
    let tcp = pair.east.connect(APEX).await;
    let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header("host", "api").body(Empty::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_connection_are_shared_out_by_weight() {
    let pair = serve_http(Split::start([80, 20], Protocol::Detect).await, false);
    let mut sender = client(&pair).await;
    let (mut west, mut run) = (0, 0);
    for n in 0..2000 {
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(get(&format!("/{n}")))).await.unwrap();
        assert_eq!(response.headers()["path"], format!("/{n}"), "answers stay with their requests");
        let is_west = by(&response) == "west";
        west += usize::from(is_west);
        run = if is_west { 0 } else { run + 1 };
        assert!(run <= 4, "smooth");
        response.into_body().collect().await.unwrap();
    }
    println!("{west} of 2000 went west");
    assert!((396..=404).contains(&west), "{west}");
    let report = reqwest_like(pair.east.admin, "/splits").await;
    assert!(report.contains(r#""backend":"api-west""#), "{report}");
    let metrics = reqwest_like(pair.east.admin, "/metrics").await;
    let line = metrics.lines().find(|l| l.starts_with("request_total") && l.contains("api-west")).unwrap();
    assert!(line.ends_with(&format!(" {west}")), "{line}");
}

/// What the admin page answers.
async fn reqwest_like(address: SocketAddr, path: &str) -> String {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let response = soon(sender.send_request(get(path))).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_trailers_and_fields_pass_and_what_concerns_one_connection_does_not() {
    let pair = serve_http(Split::start([1, 1], Protocol::Http).await, false);
    let mut sender = client(&pair).await;
    for _ in 0..4 {
        let mut sum = HeaderMap::new();
        sum.insert("x-sum", HeaderValue::from_static("7"));
        let pieces = futures::stream::iter(
            (0..64).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; 10_000])))),
        )
        .chain(futures::stream::iter([Ok(Frame::trailers(sum))]));
        let request = Request::post("/upload")
            .header("host", "api")
            .header("trailer", "x-sum")
            .header(TE, "trailers")
            .header("connection", "x-private, te")
            .header("x-private", "1")
            .header("expect", "100-continue")
            .body(StreamBody::new(pieces))
            .unwrap();
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(response.status(), StatusCode::OK);
        for absent in ["got-x-private", "got-expect", "keep-alive", "got-connection"] {
            assert!(!headers.contains_key(absent), "{absent} in {headers:?}");
        }
        assert_eq!(headers["got-host"], "api");
        assert_eq!(headers["got-via"], "1.1 api.default.linkspan");
        let body = soon(response.into_body().collect()).await.unwrap();
        let trailers = body.trailers().unwrap().clone();
        assert_eq!(
            (&trailers["x-length"], &trailers["x-told"]),
            (&"640000".parse().unwrap(), &"7".parse().unwrap())
        );
        assert_eq!(body.to_bytes(), vec![7; 640_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_can_change_its_protocol_on_either_backend() {
    let pair = serve_http(Split::start([1, 1], Protocol::Detect).await, false);
    for _ in 0..4 {
        let mut tcp = pair.east.connect(APEX).await;
        let ask =
            b"GET /chat HTTP/1.1\r\nHost: api\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";
        tcp.write_all(ask).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(tcp.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
        tcp.write_all(b"12\n\n5").await.unwrap();
        let mut bytes = [0; 5];
        soon(tcp.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"5\n\n21");
    }
}

/// The first line of the answer to `bytes`, and whether the connection ends then.
async fn answer_to(pair: &Pair, bytes: &[u8]) -> (String, String) {
    let mut tcp = pair.east.connect(APEX).await;
    tcp.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    // What is refused is closed, perhaps by a reset of what was not read.
    let _ = soon(tcp.read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    (text.lines().next().unwrap_or_default().to_owned(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_is_refused_and_closed() {
    let pair = serve_http(Split::start([1, 0], Protocol::Http).await, false);
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ] {
        let (line, _) = answer_to(&pair, bytes).await;
        assert_eq!(line, "HTTP/1.1 400 Bad Request", "{:?}", String::from_utf8_lossy(bytes));
    }
    // The first is answered, the second is refused.
    let (line, text) =
        answer_to(&pair, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nHost: a\r\n\r\n").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(text.contains("HTTP/1.1 400 Bad Request") && !text.contains("/2"), "{text}");
    let huge =
        [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 100_000], b"\r\n\r\n".to_vec()].concat();
    let (line, _) = answer_to(&pair, &huge).await;
    assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "bounded: {line}");
    let (line, text) =
        answer_to(&pair, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n").await;
    assert_eq!(line, "HTTP/1.1 405 Method Not Allowed");
    assert!(text.contains("linkspan-reason: connect-refused"), "{text}");
    let rounds = "Via: 1.1 api.default.linkspan\r\n".repeat(8);
    let (line, _) = answer_to(
        &pair,
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rounds}\r\n").as_bytes(),
    )
    .await;
    assert_eq!(line, "HTTP/1.1 508 Loop Detected");
    let (line, text) =
        answer_to(&pair, b"GET http://other.example/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(text.to_lowercase().contains("got-host: other.example"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_weights_zero_is_told_and_new_weights_reach_open_connections() {
    let split = Split::start([0, 0], Protocol::Http).await;
    let tables = split.pair.east.tables.clone();
    let pair = serve_http(split, false);
    let mut sender = client(&pair).await;
    let response = soon(sender.send_request(get("/"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["linkspan-reason"], "all-weights-zero");
    response.into_body().collect().await.unwrap();
    // The slice goes: everything goes to the apex's own pod, and the connection ends after its answer.
    tables.ports.update(|table| table.set("default", "api-split", None));
    let began = Instant::now();
    loop {
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(get("/"))).await.unwrap();
        if response.status() == StatusCode::OK {
            assert_eq!(by(&response), "here");
            assert_eq!(response.headers()["connection"], "close");
            break;
        }
        response.into_body().collect().await.unwrap();
        assert!(began.elapsed() < DEADLINE, "the end of the split is not seen");
    }
    let split = Split::start([0, 0], Protocol::Opaque).await;
    let mut tcp = split.pair.east.connect(APEX).await;
    let error = soon(tcp.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_a_backend_dies() {
    let split = Split::start([1, 1], Protocol::Http).await;
    // A pod that is listed, and refuses.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    split.set_pod(Some(dead));
    let tables = split.pair.east.tables.clone();
    let pair = serve_http(split, false);
    let mut sender = client(&pair).await;
    for n in 0..50 {
        soon(sender.ready()).await.unwrap();
        let body = Full::new(Bytes::from_static(b"not to be sent twice"));
        let request = Request::post("/").header("host", "api").body(body).unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!((response.status(), by(&response)), (StatusCode::OK, "west"), "request {n}");
        response.into_body().collect().await.unwrap();
    }
    tables.services.update(|table| {
        table.set_slice("default", "api-x", None);
        true
    });
    pair.west.set_endpoints(&[]);
    soon(sender.ready()).await.unwrap();
    let request = Request::post("/").header("host", "api").body(Full::new(Bytes::new())).unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    // A warm connection to west's pod may still carry it; nobody else does.
    let told = response.headers().get("linkspan-reason").map(|v| v.to_str().unwrap().to_owned());
    assert!(response.status() == StatusCode::OK || told.as_deref() == Some("no-backend"), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_shared_out_by_connection_and_a_server_that_speaks_first_is_heard() {
    let split = Split::start([1, 1], Protocol::Detect).await;
    let greet = async |listener: &TcpListener, name: &'static [u8]| {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tcp.write_all(name).await.unwrap();
                let mut said = Vec::new();
                tcp.read_to_end(&mut said).await.unwrap();
                tcp.write_all(&said).await.unwrap();
            });
        }
    };
    let clients = async {
        let mut west = 0;
        for _ in 0..20 {
            let began = Instant::now();
            let mut tcp = split.pair.east.connect(APEX).await;
            let mut name = [0; 4];
            soon(tcp.read_exact(&mut name)).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            west += usize::from(&name == b"west");
            tcp.write_all(b"HELO me").await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut rest = Vec::new();
            soon(tcp.read_to_end(&mut rest)).await.unwrap();
            assert_eq!(rest, b"HELO me");
        }
        assert_eq!(west, 10);
    };
    tokio::select! {
        () = greet(&split.local, b"here") => {}
        () = greet(&split.pair.backend, b"west") => {}
        () = clients => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_http_2_are_shared_out_one_by_one() {
    let pair = serve_http(Split::start([1, 1], Protocol::Detect).await, true);
    let tcp = pair.east.connect(APEX).await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for n in 0..200 {
        let request = Request::post(format!("http://api/{n}"))
            .header("content-type", "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(Bytes::from(vec![7; n])))
            .unwrap();
        soon(sender.ready()).await.unwrap();
        answers.push(sender.send_request(request));
    }
    let mut west = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        let response = soon(answer).await.unwrap();
        assert_eq!(response.headers()["path"], format!("/{n}"));
        assert_eq!(response.headers()["got-te"], "trailers");
        west += usize::from(by(&response) == "west");
        let body = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-length"], n.to_string());
    }
    assert!((98..=102).contains(&west), "{west}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_a_split_ends_with_the_called_gateways_certificate() {
    for protocol in [Protocol::Opaque, Protocol::Http] {
        let last = Clock::system().now().as_second() + 6;
        let pair = Pair::start_as(Wishes { server: last, ..Wishes::default() }).await;
        let (pair, _here, west) = Split::on(pair, [0, 1], protocol).await.take();
        let mut client = pair.east.connect(APEX).await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let (mut server, _) = soon(west.accept()).await.unwrap();
        assert_ne!(soon(server.read(&mut [0; 4096])).await.unwrap(), 0, "{protocol:?}: it arrives");
        // Nobody answers; what ends the flow is the certificate alone.
        let mut told = [0; 4096];
        let ended = soon(client.read(&mut told)).await;
        let told = String::from_utf8_lossy(&told[..*ended.as_ref().unwrap_or(&0)]).into_owned();
        let late = Clock::system().now().as_millisecond() - (last + 1) * 1000;
        assert!(
            (-50..3000).contains(&late),
            "{protocol:?}: {late} ms after the certificate's end: {ended:?} {told}"
        );
        assert!(ended.is_err() || told.starts_with("HTTP/1.1 502"), "{protocol:?}: {ended:?} {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_take_its_time() {
    let (pair, _here, west) = Split::start([0, 1], Protocol::Http).await.take();
    let mut client = pair.east.connect(APEX).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let (mut server, _) = soon(west.accept()).await.unwrap();
    assert_ne!(soon(server.read(&mut [0; 4096])).await.unwrap(), 0, "it arrives");
    let mut told = [0; 12];
    // Longer than any wait between gateways.
    let early = timeout(Duration::from_secs(8), client.read_exact(&mut told)).await;
    assert!(early.is_err(), "{early:?} {}", String::from_utf8_lossy(&told));
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    soon(client.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_read_for_long_arrives_whole() {
    const LENGTH: usize = 24 * 1024 * 1024;
    let (pair, _here, west) = Split::start([0, 1], Protocol::Http).await.take();
    let mut client = pair.east.connect(APEX).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
    let (mut server, _) = soon(west.accept()).await.unwrap();
    assert_ne!(soon(server.read(&mut [0; 4096])).await.unwrap(), 0, "it arrives");
    let sending = tokio::spawn(async move {
        server.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").as_bytes()).await?;
        server.write_all(&vec![7; LENGTH]).await
    });
    let mut head = vec![0; 12];
    soon(client.read_exact(&mut head)).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 200");
    // Longer than any silence between gateways, with all buffers full.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (mut seven, mut piece) = (0, vec![0; 1 << 20]);
    while seven < LENGTH {
        let length = soon(client.read(&mut piece)).await.unwrap();
        assert_ne!(length, 0, "it ended after {seven} of {LENGTH} bytes");
        seven += piece[..length].iter().filter(|byte| **byte == 7).count();
    }
    soon(sending).await.unwrap().unwrap();
}
