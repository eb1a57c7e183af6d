//! A server that counts whom it answered: `GET /count/<name>` counts, `GET /counts` tells. It stops as servers do: what
//! is under way is answered, connections are told to close, and new ones are taken until nobody sends any.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// After SIGTERM, requests are taken for this long.
const LINGER: Duration = Duration::from_secs(10);
/// Longest head of a request.
const MAX_HEAD: usize = 8192;
/// An idle connection is ended after this.
const IDLE: Duration = Duration::from_secs(300);

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// Serves until SIGTERM and a while longer.
///
/// # Errors
/// When `address` cannot be bound.
pub async fn run(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (leaving, is_leaving) = watch::channel(false);
    let counts = Counts::default();
    let mut end = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                leaving.send_replace(true);
                end = Some(Instant::now() + LINGER);
            }
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return Ok(()),
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let (counts, is_leaving) = (counts.clone(), is_leaving.clone());
                    tokio::spawn(async move {
                        // A client that goes away in the middle is its own affair.
                        let _ = serve(stream, &counts, is_leaving).await;
                    });
                }
            }
        }
    }
}

async fn serve(mut stream: TcpStream, counts: &Counts, mut leaving: watch::Receiver<bool>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut read: Vec<u8> = Vec::new();
    loop {
        while let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = read.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let close = *leaving.borrow() || head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
            let path = head.split(' ').nth(1).unwrap_or_default();
            let body = answer(path, counts);
            let connection = if close { "close" } else { "keep-alive" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            if close {
                stream.shutdown().await?;
                return Ok(());
            }
        }
        anyhow::ensure!(read.len() < MAX_HEAD, "a head that does not end");
        tokio::select! {
            count = timeout(IDLE, stream.read_buf(&mut read)) => if count?? == 0 { return Ok(()) },
            changed = leaving.changed(), if !*leaving.borrow() => changed?,
        }
    }
}

fn answer(path: &str, counts: &Counts) -> String {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    match path.strip_prefix("/count/") {
        Some(name) => {
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            count.to_string()
        }
        None => serde_json::to_string(&*counts).unwrap_or_default(),
    }
}
