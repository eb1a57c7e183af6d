//! The admin port over a real socket.

use super::*;
use crate::process::shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn answers_what_a_part_is_asked() {
    let readiness = Readiness::default();
    let handle = readiness.register("tls", "no Secret yet");
    let routes: Routes = Arc::new(|request: &Request<Incoming>| {
        (request.uri().path() == "/links").then(|| lines(futures::stream::iter([Bytes::from("{}\n")])))
    });
    let admin = Admin { readiness, metrics: Arc::new(Registry::default()), routes };
    let (trigger, stop) = shutdown::manual();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, admin, stop));

    assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
    let waiting = get(address, "/ready").await;
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.ends_with("tls: no Secret yet\n"), "{waiting}");
    handle.ready();
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").await.contains("# EOF"));
    assert!(get(address, "/links").await.contains("{}\n"));
    assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

    trigger.start();
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed after the stop");
}
