//! Whether what the clients saw meets the bar. Values in, one line out.

use linkspan_tests::load::report::{Failure, Report};
use std::collections::BTreeMap;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What happened.
    pub(crate) event: String,
    /// What was seen.
    pub(crate) seen: String,
    /// What of the bar was missed.
    pub(crate) missed: Vec<String>,
}

/// What all clients saw of one event.
pub(crate) struct Seen {
    /// From when on clients were watched, in milliseconds since 1970.
    pub(crate) since: i64,
    /// For how long.
    pub(crate) milliseconds: i64,
    /// By client.
    pub(crate) reports: BTreeMap<String, Report>,
}

impl Seen {
    /// Reports of those that count requests; what they do is judged by requests.
    fn asking(&self) -> impl Iterator<Item = &Report> {
        let asks = |name: &str| !name.starts_with("hold") && !name.starts_with("probe");
        self.reports.iter().filter(move |(name, _)| asks(name)).map(|(_, report)| report)
    }

    /// The longest that an error took in milliseconds, of those that began from `from` on and were told by `until`, by the
    /// clients that ask once a second: of more, the kernel lets most wait, as it bounds how many refusals a caller gets.
    pub(crate) fn slowest_error(&self, from: i64, until: i64) -> i64 {
        let probes = self.reports.iter().filter(|(name, _)| name.starts_with("probe"));
        let errors = probes.flat_map(|(_, report)| &report.failures);
        errors.filter(|f| f.began >= from && f.ended() <= until).map(|f| f.took).max().unwrap_or_default()
    }

    /// Requests that failed, earliest first.
    pub(crate) fn failures(&self) -> Vec<&Failure> {
        let mut all: Vec<&Failure> = self.asking().flat_map(|r| &r.failures).collect();
        all.sort_by_key(|f| f.ended());
        all
    }

    /// One line of numbers.
    pub(crate) fn text(&self) -> String {
        let ok: u64 = self.asking().map(Report::ok).sum();
        let failed: u64 = self.asking().map(Report::failed).sum();
        let slowest = self.asking().flat_map(|r| &r.seconds).map(|s| s.slowest).max().unwrap_or_default();
        let rate = ok as f64 * 1000.0 / self.milliseconds.max(1) as f64;
        let failures = self.failures();
        let begun = |at: Option<&&Failure>| at.map_or(0.0, |f| (f.began - self.since) as f64 / 1000.0);
        let (first, last) = (begun(failures.first()), begun(failures.last()));
        let kinds = match failed {
            0 => String::new(),
            _ => format!(" (begun {first:.1} to {last:.1} s after: {})", kinds(&failures)),
        };
        format!("{ok} answered ({rate:.0}/s), {failed} failed{kinds}, slowest {slowest} ms")
    }

    /// No request failed.
    pub(crate) fn none_failed(&self) -> Vec<String> {
        let failed: u64 = self.asking().map(Report::failed).sum();
        if failed == 0 { vec![] } else { vec![format!("{failed} failed")] }
    }

    /// Enough was asked to say anything.
    pub(crate) fn enough(&self, rate: u64) -> Vec<String> {
        let asked: u64 = self.asking().map(|r| r.ok() + r.failed()).sum();
        let wanted = rate * u64::try_from(self.milliseconds).unwrap_or_default() / 1000;
        if asked >= wanted { vec![] } else { vec![format!("only {asked} requests, {wanted} are the load")] }
    }

    /// No long-lived connection ended within `grace` milliseconds from `since` on.
    pub(crate) fn no_cut_before(&self, since: i64, grace: i64) -> Vec<String> {
        let cuts = self.reports.values().flat_map(|r| &r.cuts);
        let early: Vec<i64> = cuts.map(|cut| cut.at - since).filter(|after| *after < grace).collect();
        if early.is_empty() {
            return vec![];
        }
        vec![format!("{} flows cut after {early:?} ms, before their drain of {grace} ms", early.len())]
    }

    /// Nothing failed later than `within` milliseconds after `at`.
    pub(crate) fn last_failure(&self, at: i64, within: i64) -> Vec<String> {
        let late: Vec<&Failure> = self.failures().into_iter().filter(|f| f.ended() > at + within).collect();
        let Some(last) = late.last() else { return vec![] };
        vec![format!(
            "{} failed later than {within} ms, the last after {} ms: {}",
            late.len(),
            last.ended() - at,
            kinds(&late)
        )]
    }

    /// Nothing failed that began at `at` or later.
    pub(crate) fn failed_from(&self, at: i64) -> Vec<String> {
        let late: Vec<&Failure> = self.failures().into_iter().filter(|f| f.began >= at).collect();
        if late.is_empty() {
            vec![]
        } else {
            vec![format!("{} failed when all was well again: {}", late.len(), kinds(&late))]
        }
    }

    /// No error took longer than `within` milliseconds until it was told.
    pub(crate) fn told_within(&self, within: i64, from: i64, until: i64) -> Vec<String> {
        let slowest = self.slowest_error(from, until);
        if slowest <= within {
            vec![]
        } else {
            vec![format!("an error took {slowest} ms, more than {within}")]
        }
    }
}

impl Seen {
    /// How long after `at` the last new connection was begun that failed, in milliseconds.
    pub(crate) fn last_failed_connection(&self, at: i64) -> Option<i64> {
        self.failures().into_iter().filter(|f| !f.reused).map(|f| f.began - at).max()
    }
}

/// The failures by phase, kind of connection and cause, the most frequent first.
pub(crate) fn kinds(failures: &[&Failure]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for failure in failures {
        let reused = if failure.reused { "kept" } else { "new" };
        *counts
            .entry(format!("{} on a {reused} connection: {}", failure.phase, failure.error))
            .or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines: Vec<String> = counts.iter().take(5).map(|(kind, count)| format!("{count} x {kind}")).collect();
    lines.join("; ")
}
