//! As much of HTTP/1.1 as both ends of the benchmark need.

use crate::pattern;
use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of an answer's body.
pub(crate) const BODY: usize = 512;
/// The request.
pub(crate) const GET: &[u8] =
    b"GET /item HTTP/1.1\r\nHost: api.bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Longest head.
const HEAD: usize = 4096;

/// Answers requests until the client ends; `first` is what was read of the first one.
pub(crate) async fn answer(mut tcp: TcpStream, first: &[u8]) -> Result<()> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n");
    let mut held = first.to_vec();
    let mut out = std::mem::take(&mut answer).into_bytes();
    out.extend_from_slice(pattern::piece(0, BODY));
    loop {
        while let Some(end) = find(&held) {
            held.drain(..end);
            tcp.write_all(&out).await?;
        }
        ensure!(held.len() < HEAD, "a request has no end");
        let mut buffer = [0; HEAD];
        let length = tcp.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        held.extend_from_slice(&buffer[..length]);
    }
}

/// Sends one request and checks its whole answer. `buffer` is scratch space.
pub(crate) async fn ask(tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    tcp.write_all(GET).await?;
    buffer.clear();
    loop {
        let read = tcp.read_buf(buffer).await?;
        if read == 0 {
            bail!("the connection ended within an answer: {:?}", String::from_utf8_lossy(buffer));
        }
        if is_whole(buffer)? {
            return Ok(());
        }
    }
}

/// Whether `bytes` are a whole answer.
///
/// # Errors
/// When they are no answer, or a wrong one.
pub(crate) fn is_whole(bytes: &[u8]) -> Result<bool> {
    let Some(body) = find(bytes) else {
        ensure!(bytes.len() < HEAD, "an answer's head has no end");
        return Ok(false);
    };
    let head = std::str::from_utf8(&bytes[..body]).context("an answer's head is no text")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    ensure!(length == Some(BODY), "the answer's length is {length:?}");
    let got = &bytes[body..];
    ensure!(got.len() <= BODY && pattern::is(0, got), "an answer's body is damaged");
    Ok(got.len() == BODY)
}

fn find(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == HEAD_END).map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_all_of_its_right_body() {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 512\r\n\r\n".to_vec();
        assert!(!is_whole(&bytes[..20]).unwrap());
        bytes.extend_from_slice(pattern::piece(0, BODY));
        assert!(!is_whole(&bytes[..bytes.len() - 1]).unwrap());
        assert!(is_whole(&bytes).unwrap());
        *bytes.last_mut().unwrap() ^= 1;
        assert!(is_whole(&bytes).is_err());
        assert!(is_whole(b"HTTP/1.1 503 No\r\ncontent-length: 512\r\n\r\n").is_err());
    }
}
