//! What this pod tells the controller: health of the links, ports, and whether it is leaving.

use bytes::Bytes;
use futures::{Stream, stream};
use linkspan_core::api::{
    gateway_report::{Event, LinkHealth, UnboundPort},
    reason::Reason,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::watch, time::sleep};

/// Longest silence on a stream.
const HEARTBEAT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    draining: bool,
    links: BTreeMap<String, LinkHealth>,
    bound: Vec<u16>,
    failed: BTreeMap<u16, String>,
    /// Counted up when something changes that must be told at once.
    urgent: u64,
}

/// What all parts of the gateway report to.
#[derive(Clone, Debug, Default)]
pub struct Board(watch::Sender<State>);

impl Board {
    /// The health of `link`; `urgent` when the verdict changed.
    pub fn set(&self, link: &str, health: LinkHealth, urgent: bool) {
        self.0.send_modify(|state| {
            state.links.insert(link.to_owned(), health);
            state.urgent += u64::from(urgent);
        });
    }

    /// `link` cannot be used as it is written.
    pub fn unusable(&self, link: &str, problem: &str) {
        let health = LinkHealth {
            alive: Some(false),
            reason: Some(Reason::Internal),
            detail: Some(problem.to_owned()),
            ..LinkHealth::default()
        };
        self.set(link, health, true);
    }

    /// `link` is gone.
    pub fn remove(&self, link: &str) {
        self.0.send_modify(|state| {
            state.links.remove(link);
            state.urgent += 1;
        });
    }

    /// The ports that accept connections, and those that could not be bound.
    pub fn ports(&self, bound: Vec<u16>, failed: BTreeMap<u16, String>) {
        self.0.send_if_modified(|state| {
            let changed = state.bound != bound || state.failed != failed;
            (state.bound, state.failed) = (bound, failed);
            state.urgent += u64::from(changed);
            changed
        });
    }

    /// This pod is leaving.
    pub fn draining(&self) {
        self.0.send_modify(|state| {
            state.draining = true;
            state.urgent += 1;
        });
    }

    /// The health of `link` as last reported.
    pub fn link(&self, link: &str) -> Option<LinkHealth> {
        self.0.borrow().links.get(link).cloned()
    }

    /// Whether the gateway behind `link` answers probes.
    pub fn is_alive(&self, link: &str) -> bool {
        self.0.borrow().links.get(link).is_some_and(|health| health.alive == Some(true))
    }

    /// Everything, once.
    pub fn lines(&self) -> Bytes {
        let state = self.0.borrow().clone();
        join(&[state_event(&state), ports_event(&state)])
    }

    /// Everything, then each change as it comes, and a heartbeat each second.
    pub fn stream(&self) -> impl Stream<Item = Bytes> + Send + 'static {
        let receiver = self.0.subscribe();
        stream::unfold((receiver, None::<State>), |(mut receiver, told)| async move {
            let told = match told {
                None => {
                    let state = receiver.borrow_and_update().clone();
                    return Some((
                        join(&[state_event(&state), ports_event(&state)]),
                        (receiver, Some(state)),
                    ));
                }
                Some(told) => told,
            };
            let news = receiver.wait_for(|state| state.urgent != told.urgent);
            tokio::select! {
                changed = news => if changed.is_err() { return None },
                () = sleep(HEARTBEAT) => {}
            }
            let state = receiver.borrow_and_update().clone();
            let lines = join(&changes(&told, &state));
            Some((lines, (receiver, Some(state))))
        })
    }
}

/// What has to be told to somebody who knows `told`.
fn changes(told: &State, now: &State) -> Vec<Event> {
    let mut events = Vec::new();
    if told.draining != now.draining || told.links != now.links {
        events.push(state_event(now));
    }
    if told.bound != now.bound || told.failed != now.failed {
        events.push(ports_event(now));
    }
    if events.is_empty() {
        events.push(Event::Heartbeat {});
    }
    events
}

fn state_event(state: &State) -> Event {
    Event::State { draining: state.draining, links: state.links.clone() }
}

fn ports_event(state: &State) -> Event {
    let failed = state.failed.iter().map(|(port, error)| UnboundPort { port: *port, error: error.clone() });
    Event::Ports { bound: state.bound.clone(), failed: failed.collect() }
}

fn join(events: &[Event]) -> Bytes {
    let mut text = String::new();
    for event in events {
        // These types always serialize: their keys are strings or numbers.
        text.push_str(&serde_json::to_string(event).unwrap_or_default());
        text.push('\n');
    }
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    async fn next(stream: &mut (impl Stream<Item = Bytes> + Unpin)) -> Vec<Event> {
        let bytes = stream.next().await.unwrap();
        std::str::from_utf8(&bytes).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn tells_all_then_changes_then_that_it_lives() {
        let board = Board::default();
        board.ports(vec![10_000], BTreeMap::new());
        let mut stream = Box::pin(board.stream());
        let first = next(&mut stream).await;
        let nothing = Event::State { draining: false, links: BTreeMap::new() };
        let ports = Event::Ports { bound: vec![10_000], failed: Vec::new() };
        assert_eq!(first, [nothing, ports.clone()]);
        assert_eq!(next(&mut stream).await, [Event::Heartbeat {}]);
        board.unusable("west", "spec.gatewayPort is \"x\"");
        let told = next(&mut stream).await;
        assert!(
            matches!(&told[..], [Event::State { links, .. }] if links["west"].alive == Some(false)),
            "{told:?}"
        );
        board.draining();
        assert!(matches!(&next(&mut stream).await[..], [Event::State { draining: true, .. }]));
        board.ports(vec![10_000], BTreeMap::new());
        assert_eq!(next(&mut stream).await, [Event::Heartbeat {}]);
        assert_eq!(board.lines(), join(&[state_event(&board.0.borrow()), ports]));
    }
}
