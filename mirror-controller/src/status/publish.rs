//! Writes the Links' status, only where it says something new, and answers for it at the admin port.

use crate::{
    credentials::AccessBoard,
    link::remotes::Remotes,
    liveness,
    observe::local::Links,
    status::{
        Facts,
        events::{event, news},
        of_link, report,
    },
    world::World,
};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PostParams},
};
use linkspan_core::{
    api::{
        controller_report::ControllerReport,
        labels::FIELD_MANAGER,
        link::{Link, LinkStatus},
    },
    process::{clock::Clock, kube_client::as_manager, shutdown::Shutdown},
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(500);
/// However quiet it is, everything is looked at this often.
const PERIOD: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// Most Events that wait to be written.
const MAX_UNTOLD: usize = 1000;

/// Everything a status is made of.
#[derive(Clone)]
pub struct Reporter {
    /// Name of this replica.
    pub name: String,
    /// The snapshot.
    pub world: Arc<World>,
    /// The Links.
    pub links: watch::Receiver<Option<Links>>,
    /// How the targets are reached.
    pub remotes: Remotes,
    /// The links' credentials.
    pub board: AccessBoard,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// The time of day.
    pub clock: Clock,
}

impl Reporter {
    fn with_facts<R>(&self, name: &str, link: &Link, use_them: impl FnOnce(&Facts<'_>) -> R) -> R {
        let remote = self.remotes.state(name);
        let access = self.board.subscribe(name).borrow().clone();
        self.world.read(|snapshot| {
            let liveness = liveness::of_link(&snapshot.pods.items, name);
            use_them(&Facts { link, name, snapshot, remote: &remote, liveness: &liveness, access: &access })
        })
    }

    /// What `GET /links` answers.
    pub fn report(&self) -> ControllerReport {
        let links = self.links.borrow().clone().unwrap_or_default();
        ControllerReport {
            leader: *self.leader.borrow(),
            links: links.iter().map(|(name, link)| self.with_facts(name, link, report)).collect(),
            now: Some(format!("{:.0}", self.clock.now())),
        }
    }

    /// Writes until the shutdown, while this replica leads.
    pub async fn publish(self, client: Client, namespace: String, shutdown: Shutdown) {
        let api = Api::<Link>::namespaced(client.clone(), &namespace);
        let (mut world, mut remotes, mut links) =
            (self.world.changes(), self.remotes.changes(), self.links.clone());
        let mut latencies: HashMap<String, Instant> = HashMap::new();
        let mut written: HashMap<String, Link> = HashMap::new();
        let events = Api::<Event>::namespaced(client, &namespace);
        let mut untold: VecDeque<Event> = VecDeque::new();
        let mut leader = self.leader.clone();
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                Ok(()) = world.changed() => {}
                Ok(()) = remotes.changed() => {}
                Ok(()) = links.changed() => {}
                Ok(()) = leader.changed() => {}
                () = sleep(PERIOD) => {}
            }
            sleep(GATHER).await;
            let all = self.links.borrow().clone().unwrap_or_default();
            latencies.retain(|name, _| all.contains_key(name));
            written.retain(|name, link| all.get(name).is_some_and(|watched| is_newer(link, watched)));
            for (name, link) in &all {
                // Our own write may not have come back by the watch yet.
                let link = written.get(name).unwrap_or(link).clone();
                if *self.leader.borrow()
                    && let Some(new) = self.write(&api, name, &link, &mut latencies).await
                {
                    let status = |link: &Link| link.status.clone().unwrap_or_default();
                    let news = news(&status(&link), &status(&new));
                    untold.extend(news.iter().map(|n| event(&new, n, &self.name, self.clock.now())));
                    written.insert(name.clone(), new);
                }
            }
            self.tell(&events, &mut untold).await;
        }
    }

    /// Writes Events, oldest first, as long as that works; what is left is tried again with the next look.
    async fn tell(&self, api: &Api<Event>, untold: &mut VecDeque<Event>) {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        untold.truncate(MAX_UNTOLD);
        while *self.leader.borrow()
            && let Some(event) = untold.front()
        {
            match timeout(WRITE_TIMEOUT, api.create(&params, event)).await {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status)))
                    if (400..500).contains(&status.code) && status.code != 429 =>
                {
                    tracing::warn!(error = status.message, "an Event is refused and dropped");
                }
                Ok(Err(error)) => return tracing::warn!(%error, "an Event cannot be written; trying again"),
                Err(_) => return tracing::warn!("writing an Event took too long; trying again"),
            }
            untold.pop_front();
        }
    }

    /// Writes the status of one Link if it says something new; the Link as it is then.
    async fn write(
        &self,
        api: &Api<Link>,
        name: &str,
        link: &Link,
        latencies: &mut HashMap<String, Instant>,
    ) -> Option<Link> {
        let age = latencies.get(name).map_or(Duration::MAX, Instant::elapsed);
        let new = self.with_facts(name, link, |facts| of_link(facts, age, self.clock.now()));
        let old = link.status.clone().unwrap_or_default();
        if new == old {
            return None;
        }
        if new.latency_ms != old.latency_ms {
            latencies.insert(name.to_owned(), Instant::now());
        }
        let patch = json!({"status": patch(&new)});
        match timeout(WRITE_TIMEOUT, api.patch_status(name, &as_manager(), &Patch::Merge(patch))).await {
            Ok(Ok(link)) => return Some(link),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => {
                tracing::warn!(link = name, %error, "status of the Link cannot be written; trying again");
            }
            Err(_) => tracing::warn!(link = name, "writing the Link's status took too long; trying again"),
        }
        None
    }
}

/// Whether `a` is a newer state of the same object than `b`.
fn is_newer(a: &Link, b: &Link) -> bool {
    let version = |link: &Link| link.resource_version().and_then(|v| v.parse::<u64>().ok());
    a.uid() == b.uid() && version(a) > version(b)
}

/// `status` as a merge patch: what is absent is removed.
fn patch(status: &LinkStatus) -> Value {
    let optional = [
        "conditions",
        "services",
        "gatewayAddresses",
        "latencyMs",
        "certificateExpiresAt",
        "tokenExpiresAt",
        "mirrorServices",
    ];
    let mut patch = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = patch.as_object_mut() {
        for field in optional {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    patch
}
