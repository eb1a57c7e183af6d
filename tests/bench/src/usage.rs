//! What processes use, from `/proc`.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, fs, time::Duration};

/// The kernel's clock ticks per second in `/proc`; fixed on Linux.
const TICKS: f64 = 100.0;

/// One process as `/proc/<pid>/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of itself and of its children that have ended, user and system.
    ticks: u64,
}

/// All processes at one moment.
pub(crate) struct Processes(BTreeMap<u32, Stat>);

impl Processes {
    /// As they are now.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub(crate) fn now() -> Result<Self> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("there is no /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that ends at this moment is counted by its parent.
            let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
            if let Some(stat) = parse_stat(&text) {
                all.insert(pid, stat);
            }
        }
        Ok(Self(all))
    }

    /// `root` and all below it.
    pub(crate) fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            tree.extend(self.0.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }

    /// CPU time used by `root` and all below it, those that have ended included.
    pub(crate) fn cpu(&self, root: u32) -> f64 {
        let ticks: u64 =
            self.tree(root).iter().filter_map(|pid| self.0.get(pid)).map(|stat| stat.ticks).sum();
        ticks as f64 / TICKS
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks })
}

/// Time that the living threads of `pids` have run, exact to the nanosecond.
pub(crate) fn exact_cpu(pids: &[u32]) -> Duration {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Duration::from_nanos(sum)
}

/// Memory of `pids` in KiB; what they share is counted in parts.
///
/// # Errors
/// When one has ended, or the system does not tell.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let pss = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
        sum += pss.with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(sum)
}

/// CPU seconds that the whole machine has been busy for.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn machine_busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_busy(&text).context("/proc/stat is not as expected")
}

fn parse_busy(text: &str) -> Option<f64> {
    let fields: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    Some([0, 1, 2, 5, 6].iter().map(|n| fields.get(*n)).sum::<Option<u64>>()? as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let text = "42 (a) b ) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 127 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_busy_machine_is_one_that_is_not_idle() {
        assert_eq!(parse_busy("cpu  100 20 30 9999 8888 4 6 7 0 0\ncpu0 1 2"), Some(1.6));
    }

    #[test]
    fn own_work_shows() {
        let pids = [std::process::id()];
        let before = exact_cpu(&pids);
        let mut x = 1_u64;
        while exact_cpu(&pids) < before + Duration::from_millis(20) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(memory(&pids).unwrap() > 100);
        assert!(Processes::now().unwrap().tree(std::process::id()).contains(&pids[0]));
    }
}
