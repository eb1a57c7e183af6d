//! What one direction of a line does to a packet: values in, values out.

use std::time::Duration;

/// How a line behaves, each way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Time a packet is under way.
    pub delay: Duration,
    /// Up to this much is added to the delay, evenly distributed. Packets keep their order.
    pub jitter: Duration,
    /// Share of packets that are lost at random, 0 to 1.
    pub loss: f64,
    /// Bits per second; `None`: as fast as the machine.
    pub rate: Option<u64>,
    /// Bytes that may wait where the rate is the bottleneck; what comes on top is lost.
    pub queue: u64,
    /// Whether nothing passes.
    pub cut: bool,
}

impl Quality {
    /// A line with this delay each way that is otherwise perfect.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0.0, rate: None, queue: u64::MAX, cut: false }
    }

    /// The same line with a bottleneck of `rate` bits per second, before which `queue` bytes may wait.
    #[must_use]
    pub fn with_rate(self, rate: u64, queue: u64) -> Self {
        Self { rate: Some(rate), queue, ..self }
    }

    /// The same line losing this share of all packets.
    #[must_use]
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives(Duration),
    /// It is lost at random, or the line is cut.
    Lost,
    /// The queue before the bottleneck was full.
    Overflow,
}

/// One direction of a line. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct Line {
    quality: Quality,
    free_at: Duration,
    last: Duration,
}

impl Line {
    /// An empty line.
    pub fn new(quality: Quality) -> Self {
        Self { quality, free_at: Duration::ZERO, last: Duration::ZERO }
    }

    /// How it behaves.
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// It behaves differently from now on; what is under way stays so.
    pub fn set(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// A packet of `length` bytes enters at `now`. `chance` and `spread` are random, 0 to 1: they decide about loss
    /// and jitter.
    pub fn enter(&mut self, now: Duration, length: usize, chance: f64, spread: f64) -> Fate {
        let quality = self.quality;
        if quality.cut || chance < quality.loss {
            return Fate::Lost;
        }
        let sent = match quality.rate {
            None => now,
            Some(rate) => {
                let begins = self.free_at.max(now);
                let waiting = (begins - now).as_secs_f64() * rate as f64 / 8.0;
                if waiting + length as f64 > quality.queue as f64 {
                    return Fate::Overflow;
                }
                self.free_at = begins + Duration::from_secs_f64(length as f64 * 8.0 / rate as f64);
                self.free_at
            }
        };
        self.last = self.last.max(sent + quality.delay + quality.jitter.mul_f64(spread));
        Fate::Arrives(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_delay_is_all_that_a_perfect_line_adds() {
        let mut line = Line::new(Quality::delay(20 * MS));
        assert_eq!(line.enter(5 * MS, 1500, 0.0, 0.9), Fate::Arrives(25 * MS));
        assert_eq!(line.enter(5 * MS, 1500, 0.0, 0.0), Fate::Arrives(25 * MS));
    }

    #[test]
    fn a_bottleneck_spaces_packets_and_its_queue_has_an_end() {
        // 1,000 bytes take one millisecond.
        let mut line = Line::new(Quality::delay(10 * MS).with_rate(8_000_000, 2_500));
        assert_eq!(line.enter(Duration::ZERO, 1000, 1.0, 0.0), Fate::Arrives(11 * MS));
        assert_eq!(line.enter(Duration::ZERO, 1000, 1.0, 0.0), Fate::Arrives(12 * MS));
        assert_eq!(line.enter(Duration::ZERO, 1000, 1.0, 0.0), Fate::Overflow);
        assert_eq!(line.enter(MS, 1000, 1.0, 0.0), Fate::Arrives(13 * MS));
        assert_eq!(line.enter(50 * MS, 1000, 1.0, 0.0), Fate::Arrives(61 * MS));
    }

    #[test]
    fn loss_takes_its_share_and_a_cut_takes_all() {
        let mut line = Line::new(Quality::delay(MS).with_loss(0.25));
        let lost = (0..100).filter(|i| line.enter(MS, 1, f64::from(*i) / 100.0, 0.0) == Fate::Lost).count();
        assert_eq!(lost, 25);
        line.set(Quality { cut: true, ..line.quality() });
        assert_eq!(line.enter(MS, 1, 1.0, 0.0), Fate::Lost);
    }

    #[test]
    fn jitter_adds_to_the_delay_and_keeps_the_order() {
        let mut line = Line::new(Quality { jitter: 10 * MS, ..Quality::delay(20 * MS) });
        assert_eq!(line.enter(Duration::ZERO, 1, 1.0, 0.5), Fate::Arrives(25 * MS));
        assert_eq!(line.enter(MS, 1, 1.0, 0.0), Fate::Arrives(25 * MS));
        assert_eq!(line.enter(20 * MS, 1, 1.0, 0.0), Fate::Arrives(40 * MS));
    }
}
