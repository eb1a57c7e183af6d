//! What the gateway needs of the system it runs on, looked at once at the start.

use linkspan_core::api::labels::EGRESS_PORTS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;

/// Raises what the process may raise itself, and says in the log what only others can mend.
pub fn check() {
    raise_open_files();
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    if let Some(warning) = port_warning(&read("ip_local_port_range"), &read("ip_local_reserved_ports")) {
        tracing::warn!("{warning}");
    }
}

/// Each flow takes two file descriptors, each mirrored port one; container runtimes often start with 1024.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, allowed = limit.current, "the limit of open files cannot be raised");
        }
    }
}

/// Outgoing connections take ports of `range` (two numbers); where these are ours, a mirror's port may be taken when
/// it is to be bound. `reserved` lists ports and ranges that they leave alone.
fn port_warning(range: &str, reserved: &str) -> Option<String> {
    let mut bounds = range.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(from)), Some(Ok(to))) = (bounds.next(), bounds.next()) else { return None };
    let (first, last) = (from.max(EGRESS_PORTS.0), to.min(EGRESS_PORTS.1));
    let covered = |(a, b): (u16, u16)| a <= first && last <= b;
    let ranges = reserved.trim().split(',').filter_map(|part| {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        Some((a.parse().ok()?, b.parse().ok()?))
    });
    if first > last || ranges.into_iter().any(covered) {
        return None;
    }
    Some(format!(
        "net.ipv4.ip_local_port_range is {from}-{to}: outgoing connections may take ports {first}-{last}, which are for \
         mirrors; set it to {}-60999 for this pod",
        EGRESS_PORTS.1 + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_two_may_take_are_named() {
        assert_eq!(port_warning("32768\t60999\n", "\n"), None);
        assert!(port_warning("1024\t65535\n", "\n").unwrap().contains("take ports 10000-32767"));
        assert!(port_warning("20000 60999", "8080,20000-30000").unwrap().contains("take ports 20000-32767"));
        assert_eq!(port_warning("20000 60999", "8080,10000-32767"), None);
        assert_eq!(port_warning("", ""), None);
    }
}
