//! The body of a backend's answer on its way to the client; when it ends, the backend's connection is free again.

use crate::http::pool::Checkout;
use bytes::Bytes;
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What goes to a client: a backend's body, or the gateway's own words.
pub type Answer = Either<Tracked, Full<Bytes>>;
/// What goes to a backend: a client's body, or none when a request is sent again.
pub type Question = Either<Incoming, Empty<Bytes>>;

/// A backend's body.
pub struct Tracked {
    inner: Incoming,
    checkout: Option<Checkout>,
    on_end: Option<OnEnd>,
}

/// Told how a gRPC call ended: whether its status says success.
pub type OnEnd = Box<dyn FnOnce(bool) + Send + Sync>;

impl Tracked {
    /// `inner`, carried by `checkout`; `on_end` is told about gRPC's status.
    pub fn new(inner: Incoming, checkout: Checkout, on_end: Option<OnEnd>) -> Self {
        Self { inner, checkout: Some(checkout), on_end }
    }

    fn over(&mut self, success: bool) {
        if let Some(checkout) = self.checkout.take() {
            checkout.give_back();
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(success);
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let ok = trailers.get("grpc-status").is_none_or(|status| status == "0");
                    self.over(ok);
                }
            }
            Some(Err(_)) => {
                self.checkout = None;
                self.over(false);
            }
            None => self.over(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // A body that is known to be at its end is not asked for more. Any other was left by the client.
        if self.inner.is_end_stream() {
            self.over(true);
        }
    }
}
