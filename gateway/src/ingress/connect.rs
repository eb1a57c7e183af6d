//! Connects to one of a Service's endpoints, and counts the flows of each.

use crate::{ingress::choose::order, tunnel::socket};
use linkspan_core::api::reason::Reason;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// Longest time one endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Most endpoints tried for one flow.
const TRIES: usize = 4;

/// Open flows by endpoint.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<Mutex<HashMap<SocketAddr, usize>>>);

/// One flow of an endpoint, counted until it is dropped.
pub struct Load {
    loads: Loads,
    endpoint: SocketAddr,
}

impl Loads {
    fn count(&self, endpoint: SocketAddr) -> Load {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(endpoint).or_default() += 1;
        Load { loads: self.clone(), endpoint }
    }

    fn order(&self, endpoints: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        order(endpoints, |e| loads.get(e).copied().unwrap_or(0), |n| rand::random_range(0..n))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut loads = self.loads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = loads.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                loads.remove(&self.endpoint);
            }
        }
    }
}

/// Connects to one of `endpoints`; the next one is tried when one refuses or is silent.
///
/// # Errors
/// When there is none, or none of those tried answers.
pub async fn connect(
    endpoints: Vec<SocketAddr>,
    loads: &Loads,
) -> Result<(TcpStream, Load), (Reason, String)> {
    let mut last = (Reason::NoEndpoints, "the Service has no ready endpoint".to_owned());
    for endpoint in loads.order(endpoints).into_iter().take(TRIES) {
        let load = loads.count(endpoint);
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await;
        last = match connected {
            Ok(Ok(tcp)) => match socket::prepare(&tcp) {
                Ok(()) => return Ok((tcp, load)),
                Err(e) => (Reason::NoEndpoints, format!("endpoint {endpoint}: {e}")),
            },
            Ok(Err(e)) => (Reason::NoEndpoints, format!("endpoint {endpoint}: {e}")),
            Err(_) => (Reason::NoEndpoints, format!("endpoint {endpoint} did not answer within a second")),
        };
    }
    Err(last)
}
