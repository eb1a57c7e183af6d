//! What each backend did within the last minute: for `link-cli stat`. Pure; time is passed in.

use linkspan_core::api::split_report::{BUCKETS_MS, Window};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Length of a slot.
const SLOT: Duration = Duration::from_secs(5);
/// How many slots are looked back, the one under way included.
const SLOTS: u64 = 12;

#[derive(Clone, Debug)]
struct Slot {
    number: u64,
    window: Window,
}

/// One backend's last minute, slot by slot. Slots are made when something happens in them, so an idle one costs nothing.
#[derive(Clone, Debug)]
pub struct LastMinute {
    began: Instant,
    slots: VecDeque<Slot>,
}

impl LastMinute {
    /// Nothing happened yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, slots: VecDeque::new() }
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs()
    }

    /// A request was answered, or a connection ended, after `took`.
    pub fn add(&mut self, now: Instant, success: bool, took: Duration) {
        let number = self.number(now);
        if self.slots.back().is_none_or(|slot| slot.number != number) {
            self.slots.push_back(Slot { number, window: Window::default() });
            self.slots.retain(|slot| slot.number + SLOTS > number);
        }
        let Some(slot) = self.slots.back_mut() else { return };
        let ms = took.as_secs_f64() * 1000.0;
        let bucket = BUCKETS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BUCKETS_MS.len());
        slot.window.latency[bucket] += 1;
        if success {
            slot.window.success += 1;
        } else {
            slot.window.failure += 1;
        }
    }

    /// The last minute as one.
    pub fn window(&self, now: Instant) -> Window {
        let number = self.number(now);
        let mut sum = Window::default();
        for slot in self.slots.iter().filter(|slot| slot.number + SLOTS > number) {
            sum.add(&slot.window);
        }
        let age = now.saturating_duration_since(self.began);
        let looked_back = SLOT * (SLOTS as u32 - 1) + Duration::from_secs(age.as_secs() % SLOT.as_secs());
        sum.seconds = age.min(looked_back).as_secs_f64().max(1.0);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_is_looked_back_and_no_more() {
        let start = Instant::now();
        let mut last = LastMinute::new(start);
        let at = |s: u64| start + Duration::from_secs(s);
        for second in 0..200 {
            last.add(at(second), second % 2 == 0, Duration::from_millis(second));
        }
        let window = last.window(at(200));
        assert_eq!(window.success + window.failure, 55, "eleven whole slots");
        assert!((window.seconds - 55.0).abs() < 0.01, "{}", window.seconds);
        assert_eq!(window.latency.iter().sum::<u64>(), 55);
        let quiet = last.window(at(1000));
        assert_eq!((quiet.success, quiet.failure), (0, 0));
        assert!(last.slots.len() <= SLOTS as usize);
    }
}
