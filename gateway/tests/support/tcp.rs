//! What tests do with plain connections, and what a gateway's metrics say meanwhile.
#![allow(dead_code, reason = "each test program uses a part of this")]

use crate::pair::{DEADLINE, Gateway};
use std::io::ErrorKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// `future`, unless it takes longer than any test may.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("took too long")
}

pub(crate) async fn read_exact(tcp: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon(tcp.read_exact(&mut bytes)).await.unwrap();
    bytes
}

pub(crate) async fn read_end(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(tcp.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// Carries one byte from one end of a flow to the other.
pub(crate) async fn pass_byte(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"x").await.unwrap();
    assert_eq!(read_exact(to, 1).await, b"x");
}

/// Waits until `tcp` is reset; fails when it ends in order.
pub(crate) async fn until_reset(tcp: &mut TcpStream) {
    let mut bytes = [0; 1024];
    let error = soon(async {
        loop {
            match tcp.read(&mut bytes).await {
                Ok(0) => panic!("the connection ended in order, as if all had been said"),
                Ok(_) => {}
                Err(e) => return e,
            }
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// What the admin page `path` of `gateway` shows.
pub(crate) async fn admin(gateway: &Gateway, path: &str) -> String {
    let mut tcp = TcpStream::connect(gateway.admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8(read_end(&mut tcp).await).unwrap()
}

/// The value of the line that begins with `name`.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().parse().unwrap())
}
