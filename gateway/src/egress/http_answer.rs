//! What an HTTP client is told when its connection cannot be carried. Only for ports that are declared as HTTP: what
//! other protocols would make of it nobody knows.

use linkspan_core::api::reason::Reason;
use socket2::SockRef;
use std::{io, net::Shutdown, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Header that names the reason.
const HEADER: &str = "linkspan-reason";
/// Longest time a client may take until its request begins: an answer to no request helps nobody.
const REQUEST: Duration = Duration::from_millis(100);
/// Longest time the client may take to read the answer and to close.
const LINGER: Duration = Duration::from_secs(1);

/// Answers whatever the client asks with 502 or 503 and ends the connection in order; a client that asks nothing is
/// left alone. `asked` says that its request has been read already.
pub(super) async fn answer(local: &TcpStream, asked: bool, reason: Reason) {
    if !asked && !matches!(timeout(REQUEST, local.peek(&mut [0])).await, Ok(Ok(1))) {
        return;
    }
    // The answer fits any socket that nothing was sent on; failing means that the client is gone.
    let text = text(reason);
    if local.try_write(text.as_bytes()).is_ok_and(|written| written == text.len()) {
        let socket = SockRef::from(local);
        let _ = socket.set_linger(None);
        let _ = socket.shutdown(Shutdown::Write);
        // A close while the client still sends would take the answer away from it.
        let _ = timeout(LINGER, until_closed(local)).await;
    }
}

async fn until_closed(local: &TcpStream) {
    let mut bytes = vec![0; 4096];
    loop {
        match local.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if local.readable().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The whole answer. 503 where it may be different soon without anybody's doing.
fn text(reason: Reason) -> String {
    let status = match reason {
        Reason::NoEndpoints | Reason::Draining | Reason::NoCredentials | Reason::Timeout => {
            "503 Service Unavailable"
        }
        _ => "502 Bad Gateway",
    };
    let body = format!("linkspan: {}\n", reason.advice());
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{HEADER}: {reason}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_header_and_the_body_says_what_to_look_at() {
        let text = text(Reason::NoEndpoints);
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nlinkspan-reason: no-endpoints\r\n"));
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(super::text(Reason::NotExported).starts_with("HTTP/1.1 502 "));
    }
}
