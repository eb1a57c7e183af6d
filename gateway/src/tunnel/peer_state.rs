//! What is needed to reach one Link's gateway at this moment.

use linkspan_core::api::{identity::Identity, reason::Reason};
use rustls::ClientConfig;
use std::{net::SocketAddr, sync::Arc};

/// Everything a dial needs, or why there is none.
#[derive(Clone, Debug)]
pub struct PeerState {
    /// All known addresses of the gateway.
    pub addresses: Vec<SocketAddr>,
    /// TLS settings; `None` until there are credentials.
    pub tls: Option<Arc<ClientConfig>>,
    /// Who the gateway must be.
    pub identity: Identity,
    /// Counted up when credentials or identity change: connections of an older one take no new flows.
    pub epoch: u64,
    /// Why something is missing.
    pub problem: Option<(Reason, String)>,
}

impl PeerState {
    /// What stands in the way of a dial.
    pub fn blocked(&self) -> Option<(Reason, String)> {
        if self.tls.is_none() {
            let missing = "there is no client certificate for this link yet".to_owned();
            let told = self.problem.clone().filter(|(reason, _)| *reason == Reason::NoCredentials);
            return Some(told.unwrap_or((Reason::NoCredentials, missing)));
        }
        if self.addresses.is_empty() {
            let missing = "the link's gateway has no address yet".to_owned();
            return Some(self.problem.clone().unwrap_or((Reason::Dns, missing)));
        }
        None
    }
}
