//! Starts and ends the tasks of each Link.

use crate::{
    credentials::AccessBoard,
    link::{remotes::Remotes, view::LinkView},
    metrics::{Lags, Watches},
    observe::{
        local::Links,
        remote::{self, Turn},
    },
    world::World,
};
use kube::{Client, ResourceExt};
use linkspan_core::{
    api::link::Link,
    process::{clock::Clock, shutdown::Shutdown},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What the tasks of a Link work with.
#[derive(Clone)]
pub struct Supervisor {
    /// The snapshot.
    pub world: Arc<World>,
    /// Each link's access to its target.
    pub board: AccessBoard,
    /// Where each target's state is told.
    pub remotes: Remotes,
    /// Where broken watches are counted.
    pub watches: Arc<Watches>,
    /// Where it is measured how soon what is heard is written.
    pub lags: Arc<Lags>,
    /// The time of day.
    pub clock: Clock,
}

/// What a link's tasks were started for. A Link that was deleted and made again is another one: its target is listed
/// anew.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    uid: Option<String>,
    namespace: String,
}

impl Target {
    fn of(link: &Link) -> Self {
        Self { uid: link.uid(), namespace: LinkView::from(link).remote_namespace }
    }
}

impl Supervisor {
    /// Keeps one task per Link until the shutdown.
    pub async fn run(self, mut links: watch::Receiver<Option<Links>>, shutdown: Shutdown) {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<String, (Target, AbortHandle)> = BTreeMap::new();
        loop {
            let wanted: BTreeMap<String, Target> = links
                .borrow_and_update()
                .iter()
                .flatten()
                .map(|(name, link)| (name.clone(), Target::of(link)))
                .collect();
            running.retain(|name, (target, task)| {
                let keep = wanted.get(name) == Some(target) && !task.is_finished();
                if !keep {
                    task.abort();
                    self.remotes.forget(name);
                }
                keep
            });
            for (name, target) in wanted {
                running.entry(name).or_insert_with_key(|name| {
                    let task = tasks.spawn(self.clone().follow(name.clone(), target.namespace.clone()));
                    (target, task)
                });
            }
            tokio::select! {
                () = shutdown.started() => return,
                changed = links.changed() => if changed.is_err() { return },
                Some(ended) = tasks.join_next() => {
                    // A link's task ends only when it is aborted, or broke.
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "the task of a Link broke; it is started anew");
                    }
                }
            }
        }
    }

    /// Follows the target of one Link with the newest credentials that work. What was followed with older ones is let
    /// go only when all that the target exports was listed with the newer ones.
    async fn follow(self, link: String, namespace: String) {
        let mut access = self.board.subscribe(&link);
        let turn = watch::Sender::new(0);
        let mut turns = turn.subscribe();
        let (mut present, mut former) = (JoinSet::new(), JoinSet::new());
        let mut in_use = 0;
        loop {
            let (client, generation) = {
                let access = access.borrow_and_update();
                (access.client.clone(), access.generation)
            };
            if in_use != generation
                && let Some(client) = client
            {
                in_use = generation;
                former.abort_all();
                former = std::mem::take(&mut present);
                self.watch(&mut present, &link, &namespace, (client, Turn::new(generation, &turn)));
            }
            if *turns.borrow_and_update() == in_use {
                former.abort_all();
            }
            tokio::select! {
                changed = access.changed() => if changed.is_err() { return },
                _ = turns.changed() => {}
                Some(_) = former.join_next() => {}
                Some(ended) = present.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(link, %error, "a watch of a target cluster broke; it is started anew");
                        in_use = 0;
                    }
                }
            }
        }
    }

    fn watch(&self, watches: &mut JoinSet<()>, link: &str, namespace: &str, (client, turn): (Client, Turn)) {
        let observer = remote::Observer {
            link: link.to_owned(),
            namespace: namespace.to_owned(),
            client,
            turn,
            world: self.world.clone(),
            remotes: self.remotes.clone(),
            watches: self.watches.clone(),
            lags: self.lags.clone(),
            clock: self.clock.clone(),
        };
        watches.spawn(observer.clone().exports());
        watches.spawn(observer.clone().clocks());
        watches.spawn(observer.gateway());
    }
}
