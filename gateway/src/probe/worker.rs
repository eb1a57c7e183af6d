//! Probes one Link's gateway over a tunnel connection of its own.

use crate::{
    mtls::{expiry::Expiry, verify::reason_of},
    probe::{
        latency::{Latency, millis},
        liveness::Liveness,
    },
    tunnel::{
        channel::Channel,
        dial::{DialError, Dialed, dial, ping},
        links::Context,
        peer_state::PeerState,
    },
};
use linkspan_core::{
    api::{gateway_report::LinkHealth, link::ProbeSettings, reason::Reason},
    process::clock::Clock,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Shortest pause between two probes, also when connections break at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Probes until the Link is gone; `dice` gives random numbers from 0 to 1.
pub async fn probe(
    link: String,
    mut peer: watch::Receiver<PeerState>,
    settings: watch::Receiver<ProbeSettings>,
    context: &Context,
    mut dice: Box<dyn FnMut() -> f64 + Send>,
) {
    let Context { board, metrics, clock, .. } = context;
    let mut prober = Prober { connection: None, clock, attempts: 0 };
    let (mut liveness, mut latency) = (Liveness::default(), Latency::default());
    let mut health = board.link(&link).unwrap_or_default();
    (health.alive, health.reason, health.detail) = (None, None, None);
    loop {
        let now = *settings.borrow();
        let state = peer.borrow_and_update().clone();
        health.addresses = state.addresses.iter().map(ToString::to_string).collect();
        let outcome = timeout(now.timeout, prober.once(&state)).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} ms", now.timeout.as_millis());
            Err(DialError { reason: Reason::Timeout, detail })
        });
        metrics.probed(&link, outcome.as_ref().copied().map_err(|e| e.reason));
        let changed = judge(&mut liveness, &mut latency, &mut health, outcome, now.failure_threshold);
        if changed {
            let (alive, reason) = (health.alive, health.reason.map(Reason::as_str));
            tracing::info!(link, ?alive, reason, detail = health.detail, "verdict on the link's gateway");
        }
        if let Some(alive) = health.alive {
            metrics.alive(&link, alive);
        }
        board.set(&link, health.clone(), changed);
        let ended = Instant::now();
        let period = now.period.mul_f64(1.0 + dice() / 10.0);
        tokio::select! {
            () = sleep(period) => {}
            () = prober.broken() => {}
            changed = peer.changed() => if changed.is_err() { return },
        }
        sleep_until(ended + PAUSE).await;
    }
}

/// Takes one outcome into the verdict and the report. Whether what is reported changed, latency aside.
fn judge(
    liveness: &mut Liveness,
    latency: &mut Latency,
    health: &mut LinkHealth,
    outcome: Result<Duration, DialError>,
    threshold: u32,
) -> bool {
    let (changed, reason, detail) = match outcome {
        Ok(round_trip) => {
            latency.add(round_trip);
            health.probes_ok += 1;
            health.latency_ms = Some(millis(round_trip));
            health.latency_percentiles_ms = latency.percentiles_ms();
            (liveness.success(), None, None)
        }
        Err(e) => {
            health.probes_failed += 1;
            let changed = liveness.failure(threshold, e.reason == Reason::Refused);
            (changed, Some(e.reason), Some(e.detail))
        }
    };
    health.alive = liveness.alive();
    // A single lost probe of a gateway that lives is told by its count only.
    let dead = health.alive == Some(false);
    let news = changed || (dead && health.reason != reason);
    (health.reason, health.detail) = if health.alive == Some(true) { (None, None) } else { (reason, detail) };
    news
}

struct Connection {
    channel: Channel,
    epoch: u64,
    expiry: Expiry,
}

/// The connection that probes go over.
struct Prober<'a> {
    connection: Option<Connection>,
    clock: &'a Clock,
    attempts: u64,
}

impl Prober<'_> {
    /// One probe: the round trip of a PING, over a new connection where there is none.
    async fn once(&mut self, peer: &PeerState) -> Result<Duration, DialError> {
        self.attempts += 1;
        let current = self.connection.take().filter(|Connection { channel, epoch, expiry }| {
            let wanted = *epoch == peer.epoch && peer.addresses.contains(&channel.address());
            wanted && !channel.is_leaving() && Instant::now() < expiry.retires
        });
        let mut connection = match current {
            Some(current) => current,
            None => {
                let Dialed { channel, epoch, not_after, .. } = dial(peer, self.attempts as usize).await?;
                let expiry = Expiry::new(not_after, self.clock.now(), Instant::now());
                Connection { channel, epoch, expiry }
            }
        };
        let channel = &mut connection.channel;
        let began = Instant::now();
        ping(channel, self.attempts, &peer.identity.to_string()).await.map_err(|e| {
            match e.get_ref().and_then(|inner| inner.downcast_ref::<DialError>()) {
                Some(told) => told.clone(),
                None => DialError { reason: reason_of(&e), detail: format!("{}: {e}", channel.address()) },
            }
        })?;
        self.connection = Some(connection);
        Ok(began.elapsed())
    }

    /// Completes when the connection ends while nothing is asked.
    async fn broken(&mut self) {
        match &mut self.connection {
            Some(Connection { channel, .. }) => {
                while channel.event().await.is_ok() && !channel.is_leaving() {}
            }
            None => std::future::pending().await,
        }
        self.connection = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_lost_probe_is_counted_and_no_news() {
        let (mut liveness, mut latency, mut health) = Default::default();
        let lost = || Err(DialError { reason: Reason::Timeout, detail: "late".to_owned() });
        let mut judge = |outcome| {
            let news = judge(&mut liveness, &mut latency, &mut health, outcome, 3);
            (news, health.alive, health.reason)
        };
        assert_eq!(judge(Ok(Duration::from_millis(7))), (true, Some(true), None));
        assert_eq!(judge(lost()), (false, Some(true), None));
        assert_eq!(judge(lost()), (false, Some(true), None));
        assert_eq!(judge(lost()), (true, Some(false), Some(Reason::Timeout)));
        let refused = Err(DialError { reason: Reason::Refused, detail: "refused".to_owned() });
        assert_eq!(judge(refused), (true, Some(false), Some(Reason::Refused)), "another reason is news");
        assert_eq!(judge(Ok(Duration::from_millis(8))), (true, Some(true), None));
        assert_eq!((health.probes_ok, health.probes_failed, health.latency_ms), (2, 4, Some(8.0)));
    }
}
