//! Answers that the gateway gives itself, each with its reason in a header.

use crate::http::body::Answer;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use http_body_util::{Either, Full};

/// Header of the gateway's own answers: one word that says why.
pub const REASON: HeaderName = HeaderName::from_static("linkspan-reason");

/// Why a request is answered by the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All weights are zero.
    NoWeight,
    /// No backend was reached.
    NoBackend,
    /// The backend ended the connection before it answered.
    BackendBroke,
    /// CONNECT is no request to a Service.
    Connect,
    /// The request came round too often.
    Loop,
}

impl Why {
    fn status(self) -> StatusCode {
        match self {
            Self::NoWeight | Self::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Self::BackendBroke => StatusCode::BAD_GATEWAY,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoWeight => "all-weights-zero",
            Self::NoBackend => "no-backend",
            Self::BackendBroke => "backend-broke",
            Self::Connect => "connect-refused",
            Self::Loop => "loop-detected",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NoWeight => "all weights of the TrafficSplit are zero",
            Self::NoBackend => "no backend of the TrafficSplit can be reached",
            Self::BackendBroke => "the backend ended the connection before it answered",
            Self::Connect => "CONNECT is not for Services",
            Self::Loop => "the request came back to the same TrafficSplit too often",
        }
    }
}

/// Whether `headers` are those of a gRPC request.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// The answer for `why`; gRPC clients get theirs in the form they understand.
pub fn answer(why: Why, grpc: bool) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::new())));
    let headers = response.headers_mut();
    headers.insert(REASON, HeaderValue::from_static(why.as_str()));
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        // UNAVAILABLE: the client may try again.
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        headers.insert("grpc-message", HeaderValue::from_static(why.advice()));
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.status_mut() = why.status();
    *response.body_mut() = Either::Right(Full::new(Bytes::from(format!("linkspan: {}\n", why.advice()))));
    response
}
