//! Looks at all splits whenever anything that matters changes, and does what is to be done, while this replica leads.

mod barred;
mod publish;
mod unread;

use crate::{
    apply::{Apply, WriteError},
    ports::{self, Route},
    snapshot::{Key, Snapshot},
    split::{
        decide::{Decided, Elsewhere, Wanted, Why, decide},
        objects::target,
        step::{Memo, Next, Scene, Stage, Step, next},
        table::{MirrorPorts, SplitTable, mirror, user_selector},
        write::Writer,
    },
    world::World,
};
use kube::{Client, core::ApiResource};
use linkspan_core::{
    api::{condition::Condition, names::Target, split::MAX_ROUTE},
    process::{backoff::Backoff, clock::Clock, shutdown::Shutdown},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

/// Changes within this time are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// However quiet it is, everything is looked at this often.
const PERIOD: Duration = Duration::from_secs(30);
/// When a Service could not be read, it is tried again after this time.
const UNREAD: Duration = Duration::from_secs(1);
/// Longest time that one call may take.
const CALL: Duration = Duration::from_secs(5);

/// Takes apexes over and gives them back.
#[derive(Clone)]
pub struct Splitter {
    pub(super) client: Client,
    namespace: String,
    world: Arc<World>,
    writer: Writer,
    leader: watch::Receiver<bool>,
    clock: Clock,
    table: Arc<Mutex<SplitTable>>,
    news: Arc<Notify>,
    /// Whether the table changed since network policies were checked.
    changed: Arc<AtomicBool>,
    /// The version in which splits are served.
    pub(super) version: watch::Sender<Option<ApiResource>>,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    memos: BTreeMap<Key, Memo>,
    retries: BTreeMap<Key, (Backoff, Instant, String)>,
    barred: Option<(Instant, BTreeMap<Key, Why>)>,
    /// Conditions as told last, for a cluster whose definition has no status.
    told: BTreeMap<(Key, Option<String>), Vec<Condition>>,
}

/// What was asked of the API for one look.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    barred: BTreeMap<Key, Why>,
}

impl Elsewhere for Asked<'_> {
    fn mirror(&self, key: &Key) -> Option<MirrorPorts> {
        mirror(self.snapshot, key)
    }

    fn barred(&self, apex: &Key) -> Option<Why> {
        self.barred.get(apex).cloned()
    }
}

/// The next step at one apex, ready to be written.
struct Work {
    selector: BTreeMap<String, String>,
    next: Next,
}

impl Splitter {
    /// Works through `apply` while `leader` holds `true`; `namespace` is that of the installation.
    pub fn new(
        client: Client,
        namespace: String,
        world: Arc<World>,
        apply: Apply,
        leader: watch::Receiver<bool>,
        clock: Clock,
    ) -> Self {
        let writer = Writer { client: client.clone(), apply, leader: leader.clone() };
        Self {
            client,
            namespace,
            world,
            writer,
            leader,
            clock,
            table: Arc::default(),
            news: Arc::default(),
            changed: Arc::default(),
            version: watch::Sender::new(None),
        }
    }

    /// Changes the table, and has it looked at.
    pub(super) fn change(&self, change: impl FnOnce(&mut SplitTable)) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut table);
        table.name_services();
        drop(table);
        self.changed.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&SplitTable) -> R) -> R {
        read(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works until the shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let mut memory = Memory::default();
        let mut changes = self.world.changes();
        let (mut leader, mut again) = (self.leader.clone(), Instant::now());
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.news.notified() => {}
                Ok(()) = changes.changed() => {}
                Ok(()) = leader.changed() => memory = Memory::default(),
                () = sleep_until(again) => {}
            }
            tokio::time::sleep(GATHER).await;
            again = Instant::now() + PERIOD;
            if *leader.borrow() && !shutdown.has_started() {
                again = again.min(self.look(&mut memory).await);
            }
        }
    }

    /// Looks at everything once. When to look again at the latest.
    async fn look(&self, memory: &mut Memory) -> Instant {
        let never = Instant::now() + PERIOD;
        if !self.read_unread().await {
            return Instant::now() + UNREAD;
        }
        if !self.read(SplitTable::synced) || !self.world.read(Snapshot::local_synced) {
            return never;
        }
        let barred = self.barred_lately(memory).await;
        let decided =
            self.world.read(|snapshot| self.read(|table| decide(table, &Asked { snapshot, barred })));
        let work = self.plan(&decided, memory);
        let mut again = never;
        let mut stages: BTreeMap<Key, (Stage, Option<String>)> = BTreeMap::new();
        for (apex, work) in work {
            let Work { selector, next } = work;
            if let Some(at) = next.again {
                again = again.min(at);
            }
            let waits = memory.retries.get(&apex).filter(|(_, at, _)| *at > Instant::now());
            let failed = match waits {
                Some((_, at, error)) => {
                    again = again.min(*at);
                    Some(error.clone()).filter(|e| !e.is_empty())
                }
                None => self.carry_out(&apex, &selector, next.steps, memory, &mut again).await,
            };
            if next.dropped {
                tracing::warn!(%apex, "somebody removed our key from the selector of a split Service; it is added again");
            }
            stages.insert(apex, (next.stage, failed));
        }
        self.free_ports(&decided, &stages);
        self.tell(&decided, &stages, memory).await;
        again
    }

    /// What is to be done at each apex that is split, or was.
    fn plan(&self, decided: &Decided, memory: &mut Memory) -> BTreeMap<Key, Work> {
        let assigned: BTreeMap<&Key, BTreeMap<Target, u16>> = decided
            .wanted
            .iter()
            .filter_map(|(key, wanted)| Some((key, self.assign(key, wanted)?)))
            .collect();
        self.world.read(|snapshot| {
            self.read(|table| {
                let mut apexes = table.touched();
                apexes.extend(decided.wanted.keys().cloned());
                memory.memos.retain(|key, _| apexes.contains(key));
                memory.retries.retain(|key, _| apexes.contains(key));
                let mut work = BTreeMap::new();
                for key in apexes {
                    let apex = table.services.known.items.get(&key);
                    let scene = Scene {
                        key: &key,
                        apex,
                        wanted: decided.wanted.get(&key).zip(assigned.get(&key)),
                        shadow: table.shadow(&key),
                        around: table.slices_of(&key),
                        pods: &snapshot.pods.items,
                    };
                    let memo = memory.memos.entry(key.clone()).or_default();
                    let next = next(&scene, memo, Instant::now());
                    work.insert(key, Work { selector: apex.map(user_selector).unwrap_or_default(), next });
                }
                work
            })
        })
    }

    /// The gateway's ports of an apex; `None` when they cannot be had, or what the gateways must be told is too long.
    fn assign(&self, key: &Key, wanted: &Wanted) -> Option<BTreeMap<Target, u16>> {
        let route = |port: u16| Route { link: String::new(), target: target(key, port) };
        let routes: BTreeSet<Route> = wanted.ports.iter().map(|port| route(port.port)).collect();
        let held = ports::of_split(key);
        let known = self.world.read(|s| Some(s.ports.as_ref()?.held(&held)));
        let assigned = match known.filter(|known| known.keys().eq(&routes)) {
            Some(known) => known,
            // Only a change may wake those who look at the snapshot.
            None => {
                let now = self.clock.now();
                let settled = self.world.change(|s| Some(s.ports.as_mut()?.settle(&held, &routes, now)))?;
                settled
                    .map_err(
                        |error| tracing::warn!(apex = %key, %error, "a split has no ports at the gateway"),
                    )
                    .ok()?
            }
        };
        let assigned: BTreeMap<Target, u16> =
            assigned.into_iter().map(|(route, port)| (route.target, port)).collect();
        let told = super::objects::route(key, wanted, &assigned).to_annotation().1;
        (told.len() <= MAX_ROUTE).then_some(assigned)
    }

    /// Writes the steps at one apex; what could not be written is told, and tried again later.
    async fn carry_out(
        &self,
        apex: &Key,
        selector: &BTreeMap<String, String>,
        steps: Vec<Step>,
        memory: &mut Memory,
        again: &mut Instant,
    ) -> Option<String> {
        for step in steps {
            let Err(error) = self.writer.write(apex, selector, step).await else { continue };
            let told = match &error {
                WriteError::NotLeader | WriteError::Stale(_) => String::new(),
                WriteError::Exists(_) | WriteError::Forbidden(..) | WriteError::Failed(..) => {
                    tracing::warn!(%apex, %error, "a split could not be carried out; trying again");
                    error.to_string()
                }
            };
            let fresh = || {
                (
                    Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
                    Instant::now(),
                    String::new(),
                )
            };
            let retry = memory.retries.entry(apex.clone()).or_insert_with(fresh);
            retry.1 = Instant::now() + retry.0.wait(&mut rand::rng());
            retry.2.clone_from(&told);
            *again = (*again).min(retry.1);
            return Some(told).filter(|t| !t.is_empty());
        }
        memory.retries.remove(apex);
        None
    }

    /// Takes back the gateway's ports of apexes that are through.
    fn free_ports(&self, decided: &Decided, stages: &BTreeMap<Key, (Stage, Option<String>)>) {
        let now = self.clock.now();
        let busy: BTreeSet<Key> = stages
            .iter()
            .filter(|(_, (stage, _))| *stage != Stage::Gone)
            .map(|(key, _)| key)
            .chain(decided.wanted.keys())
            .map(ports::of_split)
            .collect();
        let over: Vec<Key> = self.world.read(|s| {
            let held = s.ports.iter().flat_map(|ports| ports.mirrors());
            held.filter(|key| ports::is_of_split(key) && !busy.contains(*key)).cloned().collect()
        });
        if over.is_empty() {
            return;
        }
        self.world.change(|snapshot| {
            for key in over {
                if let Some(ports) = snapshot.ports.as_mut() {
                    // Giving back needs no free port, so it cannot fail.
                    let _ = ports.settle(&key, &BTreeSet::new(), now);
                }
            }
        });
    }

    /// What [`Splitter::barred`] says, asked again when anything changed, and now and then.
    async fn barred_lately(&self, memory: &mut Memory) -> BTreeMap<Key, Why> {
        let changed = self.changed.swap(false, Ordering::Relaxed);
        match &memory.barred {
            Some((asked, barred)) if !changed && asked.elapsed() < PERIOD / 2 => barred.clone(),
            _ => {
                let barred = self.barred().await;
                memory.barred = Some((Instant::now(), barred.clone()));
                barred
            }
        }
    }
}

/// What the API server answers, or one sentence that says why it does not.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(CALL, request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the API server did not answer in time".to_owned()),
    }
}
