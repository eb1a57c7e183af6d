//! One gateway pod's report, read line by line.

use crate::{gateways::Gateways, pause::pause};
use bytes::{Buf, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use linkspan_core::{api::gateway_report::Event, process::backoff::Backoff};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// A pod that says nothing for this long counts as gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest line accepted: the report of 22,768 ports takes a tenth of it.
const MAX_LINE: usize = 4 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("HTTP broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {} s", SILENCE.as_secs())]
    Silent,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("a line is longer than {MAX_LINE} bytes")]
    LongLine,
    #[error("a line is no report: {0}")]
    Form(serde_json::Error),
    #[error("it ended the stream")]
    Ended,
}

/// Follows the pod called `pod` at `address` for ever.
pub(super) async fn follow(gateways: &Gateways, pod: &str, address: SocketAddr) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut first = true;
    loop {
        let error = read(gateways, pod, address, &mut backoff).await;
        // Told once, not at every try: a pod may be gone for long.
        if gateways.silent(pod) || first {
            tracing::info!(pod, %address, %error, "no report from this gateway pod; trying again");
        } else {
            tracing::debug!(pod, %address, %error, "still no report from this gateway pod");
        }
        first = false;
        pause(&mut backoff).await;
    }
}

async fn read(gateways: &Gateways, pod: &str, address: SocketAddr, backoff: &mut Backoff) -> StreamError {
    match try_read(gateways, pod, address, backoff).await {
        Ok(()) => StreamError::Ended,
        Err(error) => error,
    }
}

async fn try_read(
    gateways: &Gateways,
    pod: &str,
    address: SocketAddr,
    backoff: &mut Backoff,
) -> Result<(), StreamError> {
    let socket = within(TcpStream::connect(address)).await?.map_err(StreamError::Connect)?;
    let (mut sender, connection) = within(http1::handshake(TokioIo::new(socket))).await??;
    let request =
        Request::get("/links?watch").header("host", address.to_string()).body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Err(StreamError::Ended) };
    let exchange = async {
        let response = within(sender.send_request(request)).await??;
        if response.status() != StatusCode::OK {
            return Err(StreamError::Status(response.status()));
        }
        let mut body = response.into_body();
        let mut lines = Lines::default();
        while let Some(frame) = within(body.frame()).await? {
            let Ok(data) = frame?.into_data() else { continue };
            for event in lines.push(&data)? {
                backoff.reset();
                gateways.said(pod, event);
            }
        }
        Ok(())
    };
    tokio::pin!(connection);
    tokio::select! {
        result = exchange => result,
        result = &mut connection => Ok(result?),
    }
}

async fn within<T>(step: impl Future<Output = T>) -> Result<T, StreamError> {
    timeout(SILENCE, step).await.map_err(|_| StreamError::Silent)
}

/// Cuts what arrives into lines and reads them.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<Vec<Event>, StreamError> {
        let mut searched = self.rest.len();
        self.rest.extend_from_slice(data);
        let mut events = Vec::new();
        while let Some(end) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(searched + end);
            self.rest.advance(1);
            searched = 0;
            if !line.is_empty() {
                events.push(serde_json::from_slice(&line).map_err(StreamError::Form)?);
            }
        }
        if self.rest.len() > MAX_LINE {
            return Err(StreamError::LongLine);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_pieces_break() {
        let text = "{\"event\":\"heartbeat\"}\n\n{\"event\":\"ports\",\"bound\":[10000],\"failed\":[]}\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let events: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|piece| lines.push(piece).unwrap()).collect();
            assert_eq!(events.len(), 2, "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_and_one_that_is_no_report_end_the_stream() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let ended = (0..6).find_map(|_| lines.push(&piece).err()).unwrap();
        assert!(matches!(ended, StreamError::LongLine), "{ended}");
        assert!(matches!(Lines::default().push(b"hello\n"), Err(StreamError::Form(_))));
    }
}
