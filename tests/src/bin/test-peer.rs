//! A small process for tests to start: something that answers, or something to be killed.
//!
//! * `test-peer answer <address> <text>` says `<text>` to everybody who connects, and closes.
//! * `test-peer tick <address>` says `tick` ten times a second to everybody who connects, for ever.
//! * `test-peer api-server <file>` starts an API server, writes the process ids of its parts to `<file>` (JSON), and
//!   waits.

use anyhow::{Context, Result, bail};
use linkspan_tests::ApiServer;
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["answer", address, text] => answer(address, text).await,
        ["tick", address] => tick(address).await,
        ["api-server", file] => {
            let server = ApiServer::start("orphan").await?;
            std::fs::write(file, serde_json::to_string(&server.pids())?)?;
            std::future::pending().await
        }
        _ => bail!("usage: test-peer answer <address> <text> | tick <address> | api-server <file>"),
    }
}

async fn answer(address: &str, text: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        // A caller that has left already needs no answer.
        stream.write_all(text.as_bytes()).await.ok();
    }
}

async fn tick(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            while stream.write_all(b"tick\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}
