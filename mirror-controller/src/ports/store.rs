//! The ConfigMap in which the allocator's cursor and freed ports outlive a restart.

use crate::ports::Saved;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;

/// Name of the ConfigMap.
pub const NAME: &str = "linkspan-ports";
const CURSOR: &str = "cursor";
const FREED: &str = "freed";

/// Reads what was saved. Lines that were changed by hand into something else are passed over: the worst that follows
/// is a port that is used again early.
pub fn read(stored: &ConfigMap) -> Saved {
    let data = stored.data.clone().unwrap_or_default();
    let freed = data.get(FREED).map(String::as_str).unwrap_or_default().lines().filter_map(|line| {
        let (port, at) = line.split_once(' ')?;
        Some((port.parse().ok()?, at.trim().parse::<Timestamp>().ok()?))
    });
    Saved {
        cursor: data.get(CURSOR).and_then(|c| c.trim().parse().ok()).unwrap_or_default(),
        freed: freed.collect(),
    }
}

/// The ConfigMap that says `saved`.
pub fn write(namespace: &str, saved: &Saved) -> ConfigMap {
    let freed: Vec<String> = saved.freed.iter().map(|(port, at)| format!("{port} {at:.0}")).collect();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            (CURSOR.to_owned(), saved.cursor.to_string()),
            (FREED.to_owned(), freed.join("\n")),
        ])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let saved = Saved { cursor: 10_042, freed: BTreeMap::from([(10_007, at), (10_008, at)]) };
        assert_eq!(read(&write("linkspan", &saved)), saved);
        let mut spoilt = write("linkspan", &saved);
        spoilt
            .data
            .as_mut()
            .unwrap()
            .insert("freed".to_owned(), "x y\n10007 soon\n10008 2026-01-01T00:00:00Z".into());
        assert_eq!(read(&spoilt).freed, BTreeMap::from([(10_008, at)]));
    }
}
