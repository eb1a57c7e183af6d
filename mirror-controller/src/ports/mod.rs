//! Which port of the gateway leads to which Service of a linked cluster: a pure allocator.
//!
//! Ports go round the range, so that one that was given back is used again as late as possible, and never within
//! [`QUARANTINE`]: an old client that still dials it must not reach another Service. The slices are the authority on
//! what is in use; cursor and freed ports are kept in a ConfigMap (see [`store`]) and are input here.

pub mod keeper;
pub mod store;

use crate::snapshot::Key;
use jiff::Timestamp;
use linkspan_core::api::{names::Target, slice::SliceRoute};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long a port that was given back is not used.
pub const QUARANTINE: Duration = Duration::from_secs(600);

/// Begins the names under which split Services hold their ports.
const SPLIT: &str = "split:";

/// What one port leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The Link whose gateway serves it; empty for a split Service.
    pub link: String,
    /// Where it leads in the target cluster.
    pub target: Target,
}

/// No port of the range is free.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {size} ports of the gateway are in use or were freed less than 10 minutes ago: mirror fewer ports, or wait"
)]
pub struct Exhausted {
    /// How many ports the range has.
    pub size: usize,
}

/// What must outlive a restart and is not in the slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The port after the one that was given out last; 0 for the start of the range.
    pub cursor: u16,
    /// Ports that were given back, each with the time.
    pub freed: BTreeMap<u16, Timestamp>,
}

/// The name under which the ports of the split Service `apex` are held: one that no mirror can have.
pub fn of_split(apex: &Key) -> Key {
    Key::new(&apex.namespace, format!("{SPLIT}{}", apex.name))
}

/// Whether the ports under `key` are those of a split Service.
pub fn is_of_split(key: &Key) -> bool {
    key.name.starts_with(SPLIT)
}

/// All ports of the range, and what they lead to.
#[derive(Clone, Debug)]
pub struct Ports {
    range: (u16, u16),
    owners: BTreeMap<u16, Arc<Key>>,
    held: BTreeMap<Arc<Key>, Box<[(Route, u16)]>>,
    cursor: u16,
    freed: BTreeMap<u16, Timestamp>,
    version: u64,
}

impl Ports {
    /// The state after a restart: `slices` are what is in use (each with the mirror it belongs to), oldest first; where
    /// two claim one port, the older keeps it.
    pub fn restore<'a>(
        range: (u16, u16),
        saved: Saved,
        slices: impl IntoIterator<Item = (&'a Key, &'a SliceRoute)>,
    ) -> Self {
        let mut ports = Self {
            range,
            owners: BTreeMap::new(),
            held: BTreeMap::new(),
            cursor: if (range.0..=range.1).contains(&saved.cursor) { saved.cursor } else { range.0 },
            freed: saved.freed,
            version: 0,
        };
        for (mirror, route) in slices {
            for (port, target) in &route.ports {
                let route = Route { link: route.link.clone(), target: target.clone() };
                ports.take_back(mirror, route, *port);
            }
        }
        ports
    }

    fn take_back(&mut self, mirror: &Key, route: Route, port: u16) {
        let inside = (self.range.0..=self.range.1).contains(&port);
        let mut held = self.held(mirror);
        if inside && !held.contains_key(&route) && !self.owners.contains_key(&port) {
            held.insert(route, port);
            self.hold(mirror, held);
            self.freed.remove(&port);
        }
    }

    /// What `mirror` holds.
    pub fn held(&self, mirror: &Key) -> BTreeMap<Route, u16> {
        self.held.get(mirror).into_iter().flatten().cloned().collect()
    }

    /// Notes that `mirror` holds `routes` and nothing else.
    fn hold(&mut self, mirror: &Key, routes: BTreeMap<Route, u16>) {
        if routes.is_empty() {
            self.held.remove(mirror);
            return;
        }
        let known = self.held.get_key_value(mirror).map(|(key, _)| key.clone());
        let key = known.unwrap_or_else(|| Arc::new(mirror.clone()));
        self.owners.extend(routes.values().map(|port| (*port, key.clone())));
        self.held.insert(key, routes.into_iter().collect());
    }

    /// Gives `mirror` a port for each of `wanted`, and takes back what it holds beyond. What it holds already stays.
    ///
    /// # Errors
    /// When not all of `wanted` can be served; nothing is given then, and nothing taken back.
    pub fn settle(
        &mut self,
        mirror: &Key,
        wanted: &BTreeSet<Route>,
        now: Timestamp,
    ) -> Result<BTreeMap<Route, u16>, Exhausted> {
        let held = self.held(mirror);
        let missing: Vec<&Route> = wanted.iter().filter(|route| !held.contains_key(route)).collect();
        let fresh = self.find(missing.len(), now).ok_or(Exhausted { size: self.size() })?;
        let mut kept: BTreeMap<Route, u16> = BTreeMap::new();
        for (route, port) in held {
            if wanted.contains(&route) {
                kept.insert(route, port);
            } else {
                self.owners.remove(&port);
                self.freed.insert(port, now);
                self.version += 1;
            }
        }
        for (route, port) in missing.into_iter().zip(fresh) {
            self.freed.remove(&port);
            self.cursor = self.after(port);
            self.version += 1;
            kept.insert(route.clone(), port);
        }
        self.hold(mirror, kept.clone());
        Ok(kept)
    }

    fn find(&self, count: usize, now: Timestamp) -> Option<Vec<u16>> {
        let mut found = Vec::with_capacity(count);
        let mut port = self.cursor;
        for _ in 0..self.size() {
            if found.len() == count {
                break;
            }
            if !self.owners.contains_key(&port) && !self.in_quarantine(port, now) {
                found.push(port);
            }
            port = self.after(port);
        }
        (found.len() == count).then_some(found)
    }

    fn in_quarantine(&self, port: u16, now: Timestamp) -> bool {
        self.freed.get(&port).is_some_and(|at| age(*at, now) < QUARANTINE)
    }

    fn after(&self, port: u16) -> u16 {
        if port >= self.range.1 { self.range.0 } else { port + 1 }
    }

    /// How many ports the range has.
    pub fn size(&self) -> usize {
        usize::from(self.range.1 - self.range.0) + 1
    }

    /// How many ports are in use.
    pub fn used(&self) -> usize {
        self.owners.len()
    }

    /// The mirror that holds `port`.
    pub fn owner(&self, port: u16) -> Option<&Key> {
        self.owners.get(&port).map(|mirror| &**mirror)
    }

    /// All mirrors that hold a port.
    pub fn mirrors(&self) -> impl Iterator<Item = &Key> {
        self.held.keys().map(|mirror| &**mirror)
    }

    /// Grows with every port given out or taken back.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What must outlive a restart; ports whose quarantine is over are left out.
    pub fn saved(&self, now: Timestamp) -> Saved {
        let freed = self.freed.iter().filter(|(_, at)| age(**at, now) < QUARANTINE);
        Saved { cursor: self.cursor, freed: freed.map(|(port, at)| (*port, *at)).collect() }
    }
}

/// How long ago `at` was; a time ahead of `now` (a clock that was set back) counts as just now.
fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
