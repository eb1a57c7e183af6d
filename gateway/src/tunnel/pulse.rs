//! Whether the other end of a flow's connection is still there. Pure: what happened goes in, what to do comes out.
//!
//! The system ends a connection on which it hears nothing for [`SILENCE`]: idle ones by keep-alive, others when what
//! was sent is not acknowledged. But a receiver that stops reading closes its window, and to the system a window that
//! stays closed for so long looks the same. So each side tells when its reading falls behind (PAUSED), and is then judged by
//! whether it says so again. Where our own reading lags behind, such a word may wait unread: then what we have sent is
//! given time as well.

use std::time::Duration;
use tokio::time::Instant;

/// Longest silence of a connection that is alive.
pub const SILENCE: Duration = Duration::from_secs(4);
/// Not having read all for so long is told, and told again.
pub const PAUSE: Duration = Duration::from_secs(1);

/// So much is acknowledged also by an end that reads nothing, as it fits what it receives into.
const SMALL: usize = 32 * 1024;

/// What happened since the last time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Happened {
    /// Something was received.
    pub received: bool,
    /// All that has arrived was read.
    pub caught_up: bool,
    /// Bytes of data that were sent.
    pub sent: usize,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Say PAUSED.
    pub pause: bool,
    /// Say RESUMED.
    pub resume: bool,
    /// The other end is gone.
    pub gone: bool,
}

/// The state of one flow's connection.
#[derive(Debug)]
pub struct Pulse {
    /// Whether the other side tells its pauses.
    tells: bool,
    /// Since when something that has arrived may be unread.
    behind: Option<Instant>,
    read_at: Instant,
    /// When data was sent last, and how much without a pause before that.
    sent: Option<(Instant, usize)>,
    told_at: Option<Instant>,
    peer_paused: bool,
    /// The other side may not have had the room to say that it pauses: it has until then.
    lenient_until: Option<Instant>,
}

impl Pulse {
    /// A flow that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            tells: false,
            behind: None,
            read_at: now,
            sent: None,
            told_at: None,
            peer_paused: false,
            lenient_until: None,
        }
    }

    /// The other side has said what it can do.
    pub fn peer_tells(&mut self, tells: bool) {
        self.tells = tells;
    }

    /// The other side reads nothing, or reads again.
    pub fn peer_paused(&mut self, paused: bool) {
        self.peer_paused = paused;
    }

    /// Whether the system may end the connection because what was sent is not acknowledged.
    pub fn is_strict(&self, now: Instant) -> bool {
        let lagging = self.behind.filter(|since| now.saturating_duration_since(*since) >= PAUSE);
        // Before we fell behind we would have read that the other side pauses, had it done so long before.
        let risky =
            |since: Instant| self.sent.is_some_and(|(at, bytes)| at + 2 * PAUSE >= since && bytes > SMALL);
        let lenient = self.lenient_until.is_some_and(|until| now < until);
        self.tells && !self.peer_paused && !lenient && !lagging.is_some_and(risky)
    }

    /// When to ask [`Pulse::on`] again even if nothing happens.
    pub fn wake_at(&self) -> Option<Instant> {
        let pausing = self.behind.map(|since| self.told_at.unwrap_or(since) + PAUSE);
        let silent = self.listens().then(|| self.read_at + SILENCE);
        pausing.into_iter().chain(silent).chain(self.lenient_until).min()
    }

    /// Whether hearing nothing would mean something.
    fn listens(&self) -> bool {
        self.peer_paused && self.behind.is_none()
    }

    /// Takes in what happened.
    pub fn on(&mut self, happened: Happened, now: Instant) -> Advice {
        let mut advice = Advice::default();
        if happened.sent > 0 {
            let before = self.sent.filter(|(at, _)| now < *at + 2 * PAUSE).map_or(0, |(_, bytes)| bytes);
            self.sent = Some((now, before.saturating_add(happened.sent)));
        }
        if happened.received || (happened.caught_up && self.behind.is_some()) {
            // What was read only now may have come long ago: silence counts from here.
            self.read_at = now;
        }
        self.lenient_until = self.lenient_until.filter(|until| now < *until);
        if happened.caught_up {
            // Where neither end has read, neither could say so: what it had sent before was in the way.
            if self.behind.take().is_some_and(|since| now >= since + PAUSE) {
                self.lenient_until = Some(now + 2 * PAUSE);
            }
            // Not sooner: a window that was closed opens only when enough was read, and to the other end's system it
            // has been closed all the while.
            advice.resume = self.told_at.take().is_some();
        } else {
            let since = *self.behind.get_or_insert(now);
            if now >= self.told_at.unwrap_or(since) + PAUSE {
                self.told_at = Some(now);
                advice.pause = true;
            }
        }
        advice.gone = self.listens() && now >= self.read_at + SILENCE;
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const READ: Happened = Happened { received: true, caught_up: true, sent: 0 };
    const IDLE: Happened = Happened { received: false, caught_up: true, sent: 0 };
    const FULL: Happened = Happened { received: false, caught_up: false, sent: 0 };
    const SENT: Happened = Happened { received: false, caught_up: true, sent: 2 * SMALL };

    fn flow() -> (Pulse, Instant) {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        pulse.peer_tells(true);
        (pulse, now)
    }

    #[test]
    fn an_idle_flow_is_left_to_the_system_and_needs_no_waking() {
        let (mut pulse, now) = flow();
        assert_eq!(pulse.on(IDLE, now), Advice::default());
        assert_eq!(pulse.on(SENT, now), Advice::default());
        assert_eq!(pulse.wake_at(), None);
        assert!(pulse.is_strict(now));
        pulse.peer_tells(false);
        assert!(!pulse.is_strict(now), "an older gateway does not tell when it stops reading");
    }

    #[test]
    fn a_pause_is_told_each_second_until_something_is_read() {
        let (mut pulse, now) = flow();
        pulse.on(FULL, now);
        let mut at = now;
        for _ in 0..3 {
            at = pulse.wake_at().unwrap();
            assert!(pulse.on(FULL, at).pause);
            assert!(!pulse.on(FULL, at).pause, "once a second");
        }
        assert_eq!(at, now + 3 * PAUSE);
        assert!(pulse.on(READ, at).resume);
        assert_eq!(pulse.wake_at(), Some(at + 2 * PAUSE), "to be strict again");
    }

    #[test]
    fn who_reads_a_little_now_and_then_is_still_behind() {
        const TRICKLE: Happened = Happened { received: true, caught_up: false, sent: 0 };
        let (mut pulse, now) = flow();
        pulse.on(FULL, now);
        assert!(pulse.on(TRICKLE, now + PAUSE).pause);
        let advice = pulse.on(TRICKLE, now + PAUSE * 3 / 2);
        assert!(!advice.resume && !advice.pause);
        assert!(pulse.on(TRICKLE, now + 2 * PAUSE).pause);
        assert!(pulse.on(READ, now + 3 * PAUSE).resume);
    }

    #[test]
    fn a_peer_that_pauses_may_keep_bytes_unacknowledged_but_not_silent() {
        let (mut pulse, now) = flow();
        pulse.on(SENT, now);
        pulse.peer_paused(true);
        pulse.on(READ, now);
        assert!(!pulse.is_strict(now));
        assert_eq!(pulse.wake_at(), Some(now + SILENCE));
        assert!(!pulse.on(READ, now + SILENCE / 2).gone, "it said so again");
        let at = pulse.wake_at().unwrap();
        assert!(pulse.on(IDLE, at).gone);
        pulse.peer_paused(false);
        assert!(!pulse.on(READ, at).gone && pulse.is_strict(at));
    }

    #[test]
    fn whoever_reads_nothing_cannot_know_whether_the_other_reads() {
        let (mut pulse, now) = flow();
        pulse.on(SENT, now);
        pulse.on(FULL, now);
        assert!(pulse.is_strict(now), "at first it would be known");
        assert!(!pulse.is_strict(now + PAUSE));
        // One that has only asked for what it receives has nothing unacknowledged but its PAUSED.
        for asked in [Happened { sent: SMALL / 2, ..SENT }, SENT] {
            let (mut pulse, now) = flow();
            pulse.on(asked, now);
            let since = if asked.sent > SMALL { now + 3 * PAUSE } else { now };
            pulse.on(FULL, since);
            assert!(pulse.is_strict(since + 10 * PAUSE), "{asked:?}");
        }
    }

    #[test]
    fn whoever_has_caught_up_gives_the_other_time_to_say_that_it_reads_nothing() {
        let (mut pulse, now) = flow();
        pulse.on(SENT, now);
        for seconds in 0..5 {
            pulse.on(Happened { sent: 2 * SMALL, ..FULL }, now + seconds * PAUSE);
        }
        let read = now + 5 * PAUSE;
        pulse.on(READ, read);
        assert!(!pulse.is_strict(read));
        let at = pulse.wake_at().unwrap();
        assert_eq!(at, read + 2 * PAUSE);
        pulse.on(IDLE, at);
        assert!(pulse.is_strict(at) && pulse.wake_at().is_none());
        // A short pause was no obstacle.
        pulse.on(FULL, at);
        pulse.on(READ, at + PAUSE / 2);
        assert!(pulse.is_strict(at + PAUSE / 2));
    }

    proptest! {
        /// Two ends that read or do not, over a line that delivers: neither ever takes the other for gone, and neither
        /// is strict for long while the other reads nothing.
        #[test]
        fn a_line_that_delivers_is_never_given_up(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 1u64..40), 1..60)
        ) {
            let start = Instant::now();
            let mut now = start;
            let (mut ours, mut theirs) = (Pulse::new(now), Pulse::new(now));
            ours.peer_tells(true);
            theirs.peer_tells(true);
            // What the other has said and each has not read.
            let mut unread: [Vec<bool>; 2] = Default::default();
            let mut unread_since: Option<Instant> = None;
            for (we_read, they_read, steps) in steps {
                for _ in 0..steps {
                    now += Duration::from_millis(100);
                    for (us, reads) in [(0, we_read), (1, they_read)] {
                        let pulse = if us == 0 { &mut ours } else { &mut theirs };
                        let received = reads && !unread[us].is_empty();
                        if reads {
                            for paused in unread[us].drain(..) {
                                pulse.peer_paused(paused);
                            }
                        }
                        let advice = pulse.on(Happened { received, caught_up: reads, sent: 2 * SMALL }, now);
                        prop_assert!(!advice.gone);
                        let said = [(advice.resume, false), (advice.pause, true)];
                        unread[1 - us].extend(said.iter().filter(|(say, _)| *say).map(|(_, paused)| *paused));
                    }
                    unread_since = if they_read { None } else { Some(unread_since.unwrap_or(now)) };
                    // The system gives up after SILENCE without a word from a reader that reads nothing.
                    let closed = unread_since.map_or(Duration::ZERO, |since| now - since);
                    prop_assert!(!ours.is_strict(now) || closed < SILENCE - PAUSE, "{closed:?}");
                }
            }
        }
    }
}
