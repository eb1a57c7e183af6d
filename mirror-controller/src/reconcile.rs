//! Carries out what [`crate::plan`] says, name by name, while this replica leads.
//!
//! A name is worked on by one task at a time, `WORKERS` names at once. What fails is tried again with a growing wait,
//! for ever; everything else goes on meanwhile.

use crate::{
    apply::{Apply, WriteError, Written},
    desired::owner_of,
    diff::Change,
    metrics::{Counters, Lags},
    pause::pause,
    plan::plan,
    ports::{self, Ports, store},
    snapshot::{
        Key, service_of,
        standing::{StandingService, StandingSlice},
    },
    status::verdict::Failure,
    world::World,
};
use anyhow::Context as _;
use k8s_openapi::api::{core::v1::ConfigMap, discovery::v1::EndpointSlice};
use kube::{Api, Client, api::ListParams};
use linkspan_core::{
    api::{
        labels::{EGRESS_PORTS, MANAGED_BY, SLICE_MANAGED_BY},
        slice::SliceRoute,
        split::SplitRoute,
    },
    process::{backoff::Backoff, clock::Clock, shutdown::Shutdown},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// Names worked on at once.
const WORKERS: usize = 32;
/// Plans that one turn at a name may take: make the Service, make its slices, see that nothing is left.
const PLANS: usize = 4;
/// How long a name held by a Service that is not ours is left alone.
const OCCUPIED: Duration = Duration::from_secs(5);
/// A name that was written this often within [`CALM`] is fought over: it is put off.
const CONTESTED: u32 = 10;
/// See [`CONTESTED`].
const CALM: Duration = Duration::from_secs(20);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What the reconciler works with.
#[derive(Clone)]
pub struct Reconciler {
    /// What is known.
    pub world: Arc<World>,
    /// The writer.
    pub apply: Apply,
    /// This cluster's API, to read back what must be fresh.
    pub client: Client,
    /// Namespace of the installation.
    pub namespace: String,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// The time of day.
    pub clock: Clock,
    /// Counted here: repairs of slices.
    pub counters: Arc<Counters>,
    /// Measured here: how soon what is heard is written.
    pub lags: Arc<Lags>,
}

/// What remains to be done at a name.
enum Outcome {
    /// Nothing; so many writes were made.
    Done(u32),
    /// Another try, sooner or later.
    Retry,
    /// A Service that is not ours stands there.
    Occupied,
}

impl Reconciler {
    /// Works until the shutdown.
    pub async fn run(mut self, shutdown: Shutdown) {
        while !shutdown.has_started() {
            tokio::select! {
                () = shutdown.started() => return,
                _ = self.leader.wait_for(|leads| *leads) => {}
            }
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            while *self.leader.borrow() && !shutdown.has_started() {
                match self.read_back_ports().await {
                    Ok(ports) => {
                        self.world.change(|s| {
                            s.ports = Some(ports);
                            s.mark_all();
                        });
                        self.lead(&shutdown).await;
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "ports in use cannot be read back; trying again"
                        );
                        pause(&mut backoff).await;
                    }
                }
            }
            self.world.change(|s| s.ports = None);
        }
    }

    /// One term as leader.
    async fn lead(&mut self, shutdown: &Shutdown) {
        let mut work = JoinSet::new();
        let mut busy = BTreeSet::new();
        let mut later = Later::default();
        let mut lost = self.leader.clone();
        loop {
            later.due(Instant::now(), &self.world);
            let room = WORKERS.saturating_sub(work.len());
            let (ready, wait): (Vec<Key>, Vec<Key>) =
                self.world.change(|s| s.take_dirty(room)).into_iter().partition(|key| !busy.contains(key));
            for key in wait {
                later.again.insert(key);
            }
            for key in ready.into_iter().filter(|key| !later.is_put_off(key)) {
                busy.insert(key.clone());
                let this = self.clone();
                work.spawn(async move { (this.settle(&key).await, key) });
            }
            if work.len() < WORKERS {
                // What was taken may all have been put off: wake again for the rest.
                self.world.wake();
            }
            tokio::select! {
                () = shutdown.started() => break,
                _ = lost.wait_for(|leads| !*leads) => break,
                () = self.world.dirty(), if work.len() < WORKERS => {}
                () = sleep_until(later.next()) => {}
                Some(joined) = work.join_next() => match joined {
                    Ok((outcome, key)) => {
                        busy.remove(&key);
                        if let Outcome::Done(writes) = outcome {
                            self.lags.settled(&key, writes > 0, Instant::now());
                        }
                        later.note(key, &outcome);
                        later.release(&busy, &self.world);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a worker broke; everything is decided anew");
                        busy.clear();
                        work.abort_all();
                        self.world.change(crate::snapshot::Snapshot::mark_all);
                    }
                },
            }
        }
    }

    /// Plans and writes at one name until nothing is left to do there.
    async fn settle(&self, key: &Key) -> Outcome {
        if self.world.read(|s| s.occupant(key).is_some())
            && let Err(error) = self.find_out(key).await
        {
            return self.failed(key, &error);
        }
        let mut written = 0;
        for _ in 0..PLANS {
            let now = self.clock.now();
            let changes = self.world.change(|s| plan(s, key, now));
            if changes.is_empty() {
                let occupied = self.world.read(|s| s.occupant(key).is_some());
                return if occupied { Outcome::Occupied } else { Outcome::Done(written) };
            }
            for change in changes {
                let making_service = matches!(change, Change::CreateService(_));
                match self.apply.write(change).await {
                    Ok(result) => {
                        written += 1;
                        self.take_in(key, result);
                    }
                    Err(WriteError::Exists(_)) if making_service => {
                        if let Err(error) = self.find_out(key).await {
                            return self.failed(key, &error);
                        }
                    }
                    Err(error) => return self.failed(key, &error),
                }
            }
        }
        Outcome::Retry
    }

    /// What was written is known at once; the watch repeats it later.
    fn take_in(&self, key: &Key, written: Written) {
        self.world.change(|s| match written {
            Written::Namespace(name) => s.namespace_seen(&name),
            Written::Service(service) => s.service_seen(key, StandingService::of(*service)),
            Written::Slice(slice) => {
                self.counters.repaired(&slice);
                let (home, slice) = StandingSlice::of(&slice);
                s.slice_seen(&home, slice);
            }
            Written::ServiceGone(seen) => s.service_gone(&seen.key, &seen.state),
            Written::SliceGone(seen) => {
                s.slice_gone(key, &seen.key.name, &seen.state);
                s.kubernetes_slice_gone(&seen.key, &seen.state.uid);
            }
            Written::Export(_) | Written::ExportGone(_) => {}
        });
    }

    /// A Service stands where a mirror should: one of ours that lost its label, or somebody else's.
    async fn find_out(&self, key: &Key) -> Result<(), WriteError> {
        let found = self.apply.service(key).await?;
        let found = found.map(StandingService::of);
        self.world.change(|s| match found {
            Some(service) if owner_of(s, key, &service).is_some() => {
                s.forget_occupied(key);
                s.service_seen(key, service);
            }
            Some(_) => s.occupied(key.clone(), "it was not made by this controller"),
            None => s.forget_occupied(key),
        });
        Ok(())
    }

    fn failed(&self, key: &Key, error: &WriteError) -> Outcome {
        match error {
            WriteError::NotLeader | WriteError::Stale(_) => {}
            WriteError::Exists(_) | WriteError::Failed(..) | WriteError::Forbidden(..) => {
                tracing::warn!(%key, %error, "a mirror could not be written; trying again");
                let reason = if matches!(error, WriteError::Forbidden(..)) { "Forbidden" } else { "Error" };
                let failure = Failure::new(reason, error.to_string());
                self.world.change(|s| s.write_failed(key, &failure));
            }
        }
        Outcome::Retry
    }

    /// The ports in use, from the slices themselves: the watch may lag behind what the last leader wrote.
    async fn read_back_ports(&self) -> anyhow::Result<Ports> {
        let all = ListParams::default().labels(&format!("{SLICE_MANAGED_BY}={MANAGED_BY}"));
        let slices = Api::<EndpointSlice>::all(self.client.clone());
        let mut slices = timeout(READ_TIMEOUT, slices.list(&all))
            .await
            .context("listing EndpointSlices took too long")??
            .items;
        slices.sort_by_key(|slice| slice.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let routes: Vec<(Key, SliceRoute)> = slices
            .iter()
            .filter_map(|slice| {
                let annotations = slice.metadata.annotations.as_ref()?;
                let service = service_of(slice)?;
                if let Some(split) = SplitRoute::from_annotations(annotations) {
                    let route = split.ok()?.slice_route(&service.namespace);
                    return Some((ports::of_split(&service), route));
                }
                Some((service, SliceRoute::from_annotations(annotations).ok()?))
            })
            .collect();
        let stored = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let stored = timeout(READ_TIMEOUT, stored.get_opt(store::NAME))
            .await
            .context("reading ConfigMap linkspan-ports took too long")??;
        let saved = stored.as_ref().map(store::read).unwrap_or_default();
        Ok(Ports::restore(EGRESS_PORTS, saved, routes.iter().map(|(key, route)| (key, route))))
    }
}

/// Names whose turn comes later, and why.
#[derive(Default)]
struct Later {
    at: BTreeMap<Instant, Vec<Key>>,
    put_off: BTreeSet<Key>,
    again: BTreeSet<Key>,
    tries: HashMap<Key, (Backoff, u32, Instant)>,
}

impl Later {
    fn put_off(&mut self, key: Key, wait: Duration) {
        self.put_off.insert(key.clone());
        self.at.entry(Instant::now() + wait).or_default().push(key);
    }

    fn is_put_off(&self, key: &Key) -> bool {
        self.put_off.contains(key)
    }

    /// When the next turn comes.
    fn next(&self) -> Instant {
        self.at.keys().next().copied().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Marks the names whose turn has come.
    fn due(&mut self, now: Instant, world: &World) {
        let rest = self.at.split_off(&(now + Duration::from_nanos(1)));
        for key in std::mem::replace(&mut self.at, rest).into_values().flatten() {
            self.put_off.remove(&key);
            world.change(|s| s.mark(key));
        }
    }

    /// Names that became dirty while they were worked on are dirty again.
    fn release(&mut self, busy: &BTreeSet<Key>, world: &World) {
        let (still, free): (BTreeSet<Key>, BTreeSet<Key>) =
            std::mem::take(&mut self.again).into_iter().partition(|key| busy.contains(key));
        self.again = still;
        if !free.is_empty() {
            world.change(|s| free.into_iter().for_each(|key| s.mark(key)));
        }
    }

    fn note(&mut self, key: Key, outcome: &Outcome) {
        let now = Instant::now();
        let fresh = || (Backoff::new(Duration::from_millis(100), Duration::from_secs(10)), 0, now);
        match outcome {
            Outcome::Done(0) => {
                if self.tries.get(&key).is_some_and(|(_, _, since)| now.duration_since(*since) > CALM) {
                    self.tries.remove(&key);
                }
            }
            Outcome::Done(writes) => {
                let (backoff, count, since) = self.tries.entry(key.clone()).or_insert_with(fresh);
                if now.duration_since(*since) > CALM {
                    (*count, *since) = (0, now);
                    backoff.reset();
                }
                *count += writes;
                if *count > CONTESTED {
                    let wait = backoff.wait(&mut rand::rng()).max(Duration::from_secs(1));
                    self.put_off(key, wait);
                }
            }
            Outcome::Retry => {
                let wait = self.tries.entry(key.clone()).or_insert_with(fresh).0.wait(&mut rand::rng());
                self.put_off(key, wait);
            }
            Outcome::Occupied => self.put_off(key, OCCUPIED),
        }
    }
}
