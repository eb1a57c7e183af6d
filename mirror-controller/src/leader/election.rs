//! The election's rules, as values: what a replica does with the Lease that it reads. Pure.

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};
use std::time::Duration;
use tokio::time::Instant;

/// How long a Lease that is not renewed stays its holder's.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a holder still leads. The rest up to [`DURATION`] is for writes under way.
pub const LEADS_FOR: Duration = Duration::from_secs(10);

/// One replica's part in the election.
#[derive(Debug)]
pub struct Election {
    name: String,
    seen: Option<(LeaseSpec, Instant)>,
    renewed: Option<Instant>,
}

/// What to do with the Lease.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing: another holds it.
    Wait,
    /// Make it.
    Create(LeaseSpec),
    /// Replace it, unless it changed since.
    Write(LeaseSpec),
}

impl Election {
    /// The replica called `name`.
    pub fn new(name: String) -> Self {
        Self { name, seen: None, renewed: None }
    }

    /// What to do about `lease`, read at `now`.
    pub fn step(&mut self, lease: Option<&LeaseSpec>, now: Instant, wall: Timestamp) -> Step {
        let Some(lease) = lease else {
            return Step::Create(self.held(wall, wall, 0));
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let transitions = lease.lease_transitions.unwrap_or_default();
        if lease.holder_identity.as_deref() == Some(&self.name) {
            let since = lease.acquire_time.as_ref().map_or(wall, |t| t.0);
            return Step::Write(self.held(since, wall, transitions));
        }
        self.renewed = None;
        let free = lease.holder_identity.as_deref().unwrap_or_default().is_empty();
        let lasts = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        let unchanged =
            self.seen.as_ref().map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at));
        if free || unchanged >= lasts.unwrap_or(DURATION) {
            return Step::Write(self.held(wall, wall, transitions + 1));
        }
        Step::Wait
    }

    /// The Lease was written as `lease`; the write began at `at`.
    pub fn renewed(&mut self, lease: Option<&LeaseSpec>, at: Instant) {
        let ours = lease.and_then(|l| l.holder_identity.as_deref()) == Some(&self.name);
        self.renewed = ours.then_some(at);
        self.seen = lease.map(|l| (l.clone(), at));
    }

    /// Until when this replica leads, if it does.
    pub fn until(&self) -> Option<Instant> {
        self.renewed.map(|at| at + LEADS_FOR)
    }

    /// Whether this replica leads at `now`.
    pub fn leads(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// The Lease given back, if this replica holds it.
    pub fn released(&self, lease: Option<&LeaseSpec>) -> Option<LeaseSpec> {
        let lease = lease.filter(|l| l.holder_identity.as_deref() == Some(&self.name))?;
        Some(LeaseSpec { holder_identity: Some(String::new()), ..lease.clone() })
    }

    fn held(&self, since: Timestamp, now: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(since)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn written(step: Step) -> LeaseSpec {
        match step {
            Step::Create(spec) | Step::Write(spec) => spec,
            Step::Wait => panic!("nothing is written"),
        }
    }

    #[test]
    fn the_holder_renews_and_leads_only_so_long_without_renewal() {
        let (mut a, t0) = (Election::new("a".into()), Instant::now());
        let lease = written(a.step(None, t0, wall()));
        a.renewed(Some(&lease), t0);
        assert!(a.leads(t0 + LEADS_FOR / 2) && !a.leads(t0 + LEADS_FOR));
        let again = written(a.step(Some(&lease), t0 + LEADS_FOR / 2, wall()));
        assert_eq!(again.acquire_time, lease.acquire_time);
    }

    #[test]
    fn a_standby_waits_until_it_has_seen_no_renewal_for_long_enough() {
        let (mut a, mut b, t0) = (Election::new("a".into()), Election::new("b".into()), Instant::now());
        let lease = written(a.step(None, t0, wall()));
        assert_eq!(b.step(Some(&lease), t0, wall()), Step::Wait);
        let mut renewed = lease.clone();
        renewed.renew_time = Some(MicroTime("2026-01-01T00:00:09Z".parse().unwrap()));
        assert_eq!(
            b.step(Some(&renewed), t0 + DURATION, wall()),
            Step::Wait,
            "it changed: the time starts anew"
        );
        assert_eq!(b.step(Some(&renewed), t0 + DURATION + DURATION / 2, wall()), Step::Wait);
        let taken = written(b.step(Some(&renewed), t0 + DURATION * 2, wall()));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn a_lease_given_back_is_taken_at_once_and_its_old_holder_leads_no_more() {
        let (mut a, mut b, t0) = (Election::new("a".into()), Election::new("b".into()), Instant::now());
        let lease = written(a.step(None, t0, wall()));
        a.renewed(Some(&lease), t0);
        let free = a.released(Some(&lease)).unwrap();
        let taken = written(b.step(Some(&free), t0, wall()));
        assert!(b.released(Some(&lease)).is_none(), "not ours to give back");
        assert_eq!(a.step(Some(&taken), t0, wall()), Step::Wait);
        assert!(!a.leads(t0));
    }
}
