//! Connects to one of a Service's endpoints; counts the flows of each and remembers which did not answer.

use crate::{
    ingress::{
        choose::{Candidate, Standing, order},
        ejection::Ejections,
    },
    record::Metrics,
    tunnel::socket,
};
use futures::stream::{FuturesUnordered, StreamExt};
use linkspan_core::api::reason::Reason;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// Longest time until a flow has an endpoint or is refused: less than the second in which a flow that cannot be
/// carried must end.
const PATIENCE: Duration = Duration::from_millis(900);
/// Wait until the next endpoint is tried beside one that is silent.
const STAGGER: Duration = Duration::from_millis(250);
/// Most endpoints tried for one flow.
const TRIES: usize = 4;

/// Open flows by endpoint, and endpoints that did not answer.
#[derive(Clone)]
pub struct Backends {
    state: Arc<Mutex<State>>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    loads: HashMap<SocketAddr, usize>,
    ejections: Ejections,
}

/// One flow of an endpoint, counted until it is dropped.
pub struct Load {
    backends: Backends,
    endpoint: SocketAddr,
}

impl Backends {
    /// Nothing is known.
    pub fn new(metrics: Metrics) -> Self {
        Self { state: Arc::default(), metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, endpoint: SocketAddr) -> Load {
        *self.state().loads.entry(endpoint).or_default() += 1;
        Load { backends: self.clone(), endpoint }
    }

    fn order(&self, candidates: Vec<Candidate>) -> Vec<SocketAddr> {
        let (state, now) = (self.state(), Instant::now());
        let standing = |e: &SocketAddr| Standing {
            load: state.loads.get(e).copied().unwrap_or(0),
            out: state.ejections.is_out(e, now),
        };
        order(candidates, standing, |n| rand::random_range(0..n))
    }

    fn judge(&self, endpoint: SocketAddr, answered: bool) {
        let mut state = self.state();
        let before = state.ejections.count();
        if answered {
            state.ejections.answered(&endpoint);
        } else {
            state.ejections.failed(endpoint, Instant::now());
        }
        let count = state.ejections.count();
        drop(state);
        if count != before {
            self.metrics.ejected(count);
        }
    }

    /// Judges those that were given the time to answer, and did not.
    fn judge_silent(&self, silent: &[(SocketAddr, Instant)]) {
        let now = Instant::now();
        for (endpoint, _) in silent.iter().filter(|(_, since)| *since + STAGGER <= now) {
            self.judge(*endpoint, false);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut state = self.backends.state();
        if let Some(count) = state.loads.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                state.loads.remove(&self.endpoint);
            }
        }
    }
}

/// Connects to one of `candidates`. The next one is tried when one refuses, and beside one that is silent; `again` is
/// called for each but the first.
///
/// # Errors
/// When there is none, or none of those tried answers in time.
pub async fn connect(
    candidates: Vec<Candidate>,
    backends: &Backends,
    again: impl Fn(),
) -> Result<(TcpStream, Load), (Reason, String)> {
    let mut waiting = backends.order(candidates).into_iter().take(TRIES).enumerate().peekable();
    let mut trying = FuturesUnordered::new();
    let mut silent: Vec<(SocketAddr, Instant)> = Vec::new();
    let mut last = "the Service has no ready endpoint".to_owned();
    let began = Instant::now();
    loop {
        let now = Instant::now();
        let stagger_over = silent.last().is_none_or(|(_, since)| *since + STAGGER <= now);
        if stagger_over && let Some((number, endpoint)) = waiting.next() {
            if number > 0 {
                again();
            }
            silent.push((endpoint, now));
            let load = backends.load(endpoint);
            trying.push(async move { (endpoint, load, dial(endpoint).await) });
        }
        let Some((_, newest)) = silent.last() else { return Err((Reason::NoEndpoints, last)) };
        tokio::select! {
            Some((endpoint, load, dialed)) = trying.next() => {
                silent.retain(|(one, _)| *one != endpoint);
                backends.judge(endpoint, dialed.is_ok());
                match dialed {
                    Ok(tcp) => {
                        backends.judge_silent(&silent);
                        return Ok((tcp, load));
                    }
                    Err(e) => last = format!("endpoint {endpoint}: {e}"),
                }
            }
            () = sleep_until(*newest + STAGGER), if waiting.peek().is_some() => {}
            () = sleep_until(began + PATIENCE) => {
                backends.judge_silent(&silent);
                let silent: Vec<String> = silent.iter().map(|(one, _)| one.to_string()).collect();
                let detail = format!("endpoint {} did not answer in time", silent.join(", "));
                return Err((Reason::NoEndpoints, detail));
            }
        }
    }
}

async fn dial(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(endpoint).await?;
    socket::prepare(&tcp)?;
    Ok(tcp)
}
