//! What a test can do to the way between a client and an API server.

pub use crate::http_faults::Seen;
use crate::{
    http_faults::{Failure, HttpFaults},
    relay::Relay,
    tls::{Authority, ServerCertificate},
};
use anyhow::Result;
use http::StatusCode;
use std::net::{IpAddr, SocketAddr};

/// The way to an API server: a [`Relay`] for what happens to bytes, and behind it a proxy for what happens to
/// requests. It speaks HTTP/1.1 over TLS and passes tokens on, but not client certificates.
#[derive(Debug)]
pub struct Faults {
    relay: Relay,
    http: HttpFaults,
}

impl Faults {
    pub(crate) fn start(
        listen: IpAddr,
        authority: &Authority,
        certificate: &ServerCertificate,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let http = HttpFaults::start(authority, certificate, upstream)?;
        let relay = Relay::start((listen, 0).into(), http.address)?;
        Ok(Self { relay, http })
    }

    /// What happens to bytes: pause, delay, cut, refuse.
    pub fn bytes(&self) -> &Relay {
        &self.relay
    }

    /// Answers `status` to the next `times` requests with this `method` (empty: any) whose path and query contain
    /// `path`.
    ///
    /// # Panics
    /// When `status` is no HTTP status.
    pub fn fail(&self, method: &str, path: &str, status: u16, times: u32) {
        let status = StatusCode::from_u16(status).expect("an HTTP status from 100 to 999");
        let failure = Failure { method: method.to_owned(), path: path.to_owned(), status, left: times };
        self.http.script().failures.push(failure);
    }

    /// Takes back what [`Faults::fail`] asked for.
    pub fn stop_failing(&self) {
        self.http.script().failures.clear();
    }

    /// The requests so far, oldest first, at most 100,000. A watch is noted when it is answered, not when it ends.
    pub fn requests(&self) -> Vec<Seen> {
        self.http.script().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.http.script().seen.clear();
    }

    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.http.lead_to(upstream);
    }
}
