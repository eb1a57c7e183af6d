//! Keeps a set of tasks per Link: one follows its addresses and credentials, one is its pool, one probes. A Link
//! that fails, or whose tasks fail, affects no other.

use crate::{
    mtls::credentials::{Client, Credentials},
    probe::{board::Board, worker::probe},
    record::Metrics,
    shared::Shared,
    tunnel::{
        addresses::{self, AddressBook, Answers, Found},
        link_table::{LinkRow, LinkTable},
        peer_state::PeerState,
        pool::Pool,
        pool_state::Limits,
    },
};
use futures::future::join_all;
use linkspan_core::{
    api::reason::Reason,
    process::{clock::Clock, resolver::Names},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Wait until a Link's tasks are started again after one has failed.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The pools of all Links, by name.
#[derive(Clone, Default)]
pub struct Pools(Arc<RwLock<HashMap<String, Pool>>>);

impl Pools {
    /// The pool of `link`.
    pub fn get(&self, link: &str) -> Option<Pool> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(link).cloned()
    }

    fn set(&self, link: &str, pool: Option<Pool>) {
        let mut pools = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match pool {
            Some(pool) => pools.insert(link.to_owned(), pool),
            None => pools.remove(link),
        };
    }
}

/// What a Link's tasks need.
#[derive(Clone)]
pub struct Context {
    /// Where flows find the pools.
    pub pools: Pools,
    /// Where probes report.
    pub board: Board,
    /// What is counted.
    pub metrics: Metrics,
    /// Looks host names up; `None` where the system has no resolver.
    pub names: Option<Names>,
    /// Tells when certificates end.
    pub clock: Clock,
}

/// What a Link's tasks work from.
#[derive(Clone, PartialEq)]
struct Input {
    row: LinkRow,
    client: Option<Client>,
}

struct Running {
    input: watch::Sender<Input>,
    task: tokio::task::AbortHandle,
}

/// Follows the Links until nobody can change them any more.
pub async fn run(
    table: Arc<Shared<LinkTable>>,
    mut credentials: watch::Receiver<Arc<Credentials>>,
    context: Context,
) {
    let mut changes = table.subscribe();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let rows = table.read(|table| table.rows().clone());
        let clients = credentials.borrow_and_update().clone();
        for (link, one) in &running {
            if !rows.get(link).is_some_and(Result::is_ok) {
                // Reaped below; only then can a Link of this name start again.
                one.task.abort();
            }
        }
        for (link, row) in rows {
            match row {
                Ok(row) => {
                    let input = Input { row, client: clients.clients.get(&link).cloned() };
                    update(&link, input, &mut running, &mut tasks, &context);
                }
                Err(problem) => context.board.unusable(&link, &problem),
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = credentials.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                running.retain(|_, one| !one.task.is_finished());
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "the tasks of a link failed; they start again");
                    sleep(RESTART_AFTER).await;
                }
            }
        }
    }
}

fn update(
    link: &str,
    input: Input,
    running: &mut BTreeMap<String, Running>,
    tasks: &mut JoinSet<()>,
    context: &Context,
) {
    if let Some(one) = running.get(link) {
        one.input.send_if_modified(|before| {
            let changed = *before != input;
            *before = input;
            changed
        });
        return;
    }
    let (sender, receiver) = watch::channel(input);
    let task = tasks.spawn(run_link(link.to_owned(), receiver, context.clone()));
    running.insert(link.to_owned(), Running { input: sender, task });
}

/// Takes back what a Link's tasks have shown to others.
struct Shown<'a> {
    link: &'a str,
    context: &'a Context,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.context.pools.set(self.link, None);
        self.context.metrics.forget_link(self.link);
        self.context.board.remove(self.link);
    }
}

/// All tasks of one Link; the first that ends ends them all.
async fn run_link(link: String, input: watch::Receiver<Input>, context: Context) {
    let _shown = Shown { link: &link, context: &context };
    let row = input.borrow().row.clone();
    let start =
        PeerState { addresses: Vec::new(), tls: None, identity: row.identity, epoch: 0, problem: None };
    let (peer_sender, peer) = watch::channel(start);
    let (probe_sender, probe_settings) = watch::channel(row.probe);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(input, context.names.clone(), peer_sender, probe_sender));
    let dice = Box::new(rand::random::<f64>);
    let (limits, metrics) = (Limits::default(), context.metrics.clone());
    let (pool, work) = Pool::new(&link, limits, peer.clone(), metrics, context.clock.clone(), dice);
    context.pools.set(&link, Some(pool));
    tasks.spawn(work);
    let dice = Box::new(rand::random::<f64>);
    let probing = probe(link.clone(), peer, probe_settings, &context, dice);
    tokio::select! {
        () = probing => {}
        Some(Err(error)) = tasks.join_next() => if error.is_panic() {
            std::panic::resume_unwind(error.into_panic())
        },
    }
}

/// Turns what is known of a Link into what dials need; names are looked up again when their time is over.
async fn follow(
    mut input: watch::Receiver<Input>,
    names: Option<Names>,
    peer: watch::Sender<PeerState>,
    probe: watch::Sender<linkspan_core::api::link::ProbeSettings>,
) {
    let mut current: Option<Input> = None;
    let mut book = AddressBook::default();
    loop {
        let wanted = input.borrow_and_update().clone();
        let endpoints = &wanted.row.endpoints;
        let renewed = current.as_ref().is_none_or(|before| {
            before.client != wanted.client || before.row.identity != wanted.row.identity
        });
        // Numbers and earlier answers can be used at once; names take their time.
        let mut found = book.enter(endpoints, &Answers::new(), Instant::now());
        publish(&peer, &wanted, &found, renewed);
        probe.send_if_modified(|before| std::mem::replace(before, wanted.row.probe) != wanted.row.probe);
        if found.again_at.is_some() {
            let answers = look_up(endpoints, names.as_ref()).await;
            found = book.enter(endpoints, &answers, Instant::now());
            publish(&peer, &wanted, &found, false);
        }
        current = Some(wanted);
        tokio::select! {
            changed = input.changed() => if changed.is_err() { return },
            () = until(found.again_at) => {}
        }
    }
}

fn publish(peer: &watch::Sender<PeerState>, wanted: &Input, found: &Found, renewed: bool) {
    peer.send_if_modified(|state| {
        let mut problem = found.problem.clone().map(|detail| (Reason::Dns, detail));
        if renewed {
            state.epoch += 1;
            state.identity = wanted.row.identity.clone();
            state.tls = None;
            if let Some(client) = &wanted.client {
                match client.config(&wanted.row.identity) {
                    Ok(config) => state.tls = Some(Arc::new(config)),
                    Err(e) => problem = Some((Reason::NoCredentials, e.to_string())),
                }
            }
        } else if state.tls.is_none() {
            problem = state.problem.take().filter(|(reason, _)| *reason == Reason::NoCredentials).or(problem);
        }
        let changed = renewed || state.addresses != found.addresses || state.problem != problem;
        (state.addresses, state.problem) = (found.addresses.clone(), problem);
        changed
    });
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Asks for all names at once.
async fn look_up(endpoints: &[(String, u16)], names: Option<&Names>) -> Answers {
    let one = |host: String| async move {
        let answer = match names {
            Some(names) => names.lookup(&host).await,
            None => Err(format!("name {host} cannot be looked up: /etc/resolv.conf could not be read")),
        };
        (host, answer)
    };
    let hosts: Vec<String> = addresses::names(endpoints).into_iter().map(str::to_owned).collect();
    join_all(hosts.into_iter().map(one)).await.into_iter().collect()
}
