//! One HTTP request, asked plainly.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The body that `GET <path>` on `address` (`host:port`) answers with status 200.
///
/// # Errors
/// When there is no whole answer within 30 s, or one with another status.
pub async fn get(address: &str, path: &str) -> Result<String> {
    timeout(PATIENCE, ask(address, path)).await.with_context(|| format!("GET {address}{path}: no answer"))?
}

async fn ask(address: &str, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    // Of HTTP/1.0, so that the body comes as it is and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no head: {answer:?}"))?;
    ensure!(head.split(' ').nth(1) == Some("200"), "GET {address}{path}: {answer}");
    Ok(body.to_owned())
}
