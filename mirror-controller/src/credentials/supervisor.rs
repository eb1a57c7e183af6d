//! Watches the Links and keeps one set of keepers per Link: one unreachable cluster delays no other, and a keeper that
//! breaks is seen and started anew.

use crate::credentials::{
    CredentialsContext, access_keeper, certificate_keeper,
    desk::{Desk, LinkFacts},
    finding::Finding,
    peer_bundle,
};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use linkspan_core::api::link::Link;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};
use tokio::task::{AbortHandle, JoinSet};

/// How long a link whose keepers broke is left alone.
const AFTER_BREAKAGE: Duration = Duration::from_secs(5);

/// Keeps the credentials of every Link until the shutdown.
pub async fn run(context: CredentialsContext) -> anyhow::Result<()> {
    let api: Api<Link> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut events = pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let mut links = Links {
        context: context.clone(),
        table: LinkTable::default(),
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            () = context.shutdown.started() => return Ok(()),
            Some(ended) = links.tasks.join_next(), if !links.tasks.is_empty() => match ended {
                Ok(link) => links.restart(&link),
                Err(error) if error.is_cancelled() => {}
                Err(error) => return Err(error.into()),
            },
            event = events.next() => match event {
                Some(Ok(event)) => links.take(event),
                Some(Err(error)) => tracing::warn!(%error, "watch of the Links broke; trying again"),
                None => anyhow::bail!("the watch of the Links ended"),
            },
        }
    }
}

/// The Links as they were seen.
#[derive(Default)]
struct LinkTable {
    links: BTreeMap<String, LinkFacts>,
    /// What a list in progress has brought; `None` between lists.
    listing: Option<BTreeMap<String, LinkFacts>>,
    /// Whether a list was complete once.
    complete: bool,
}

impl LinkTable {
    /// Takes an event; returns the names of Links that are new, changed or gone.
    fn take(&mut self, event: Event<Link>) -> BTreeSet<String> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                BTreeSet::new()
            }
            Event::InitApply(link) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(link.name_any(), LinkFacts::of(&link));
                BTreeSet::new()
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.links, listed);
                self.complete = true;
                let names: BTreeSet<_> = before.keys().chain(self.links.keys()).cloned().collect();
                names.into_iter().filter(|name| before.get(name) != self.links.get(name)).collect()
            }
            Event::Apply(link) => {
                let (name, facts) = (link.name_any(), LinkFacts::of(&link));
                let differs = self.links.get(&name) != Some(&facts);
                self.links.insert(name.clone(), facts);
                if differs { BTreeSet::from([name]) } else { BTreeSet::new() }
            }
            Event::Delete(link) => {
                self.links.remove(&link.name_any()).map(|facts| facts.name).into_iter().collect()
            }
        }
    }
}

struct Links {
    context: CredentialsContext,
    table: LinkTable,
    /// One per Link; gives the Link's name when its keepers ended.
    tasks: JoinSet<String>,
    running: BTreeMap<String, AbortHandle>,
}

impl Links {
    fn take(&mut self, event: Event<Link>) {
        let changed = self.table.take(event);
        if self.table.complete {
            let names: BTreeSet<String> = self.table.links.keys().cloned().collect();
            self.context.exchange.want(|wanted| {
                wanted.peers.retain(|name, _| names.contains(name));
                wanted.links = Some(names);
            });
        }
        for name in changed {
            if let Some(task) = self.running.remove(&name) {
                task.abort();
            }
            match self.table.links.get(&name).cloned() {
                Some(facts) => self.start(facts, Duration::ZERO),
                None => self.context.board.forget(&name),
            }
        }
    }

    /// The keepers of link `name` ended, which they do only when one of them broke.
    fn restart(&mut self, name: &str) {
        if self.context.shutdown.has_started() {
            return;
        }
        tracing::error!(link = name, "the keepers of this link's credentials broke; starting them anew");
        if let Some(facts) = self.table.links.get(name).cloned() {
            self.start(facts, AFTER_BREAKAGE);
        }
    }

    fn start(&mut self, facts: LinkFacts, after: Duration) {
        let name = facts.name.clone();
        let gateway = match &facts.gateway {
            Ok(gateway) => gateway.clone(),
            Err(why) => {
                let finding = Finding::Wrong("LinkInvalid", why.clone());
                self.context.board.tell(&name, |access| access.findings.access = finding);
                return;
            }
        };
        let desk = Desk::new(self.context.clone(), facts, gateway);
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            keep(desk).await
        });
        self.running.insert(name, task);
    }
}

/// Runs the keepers of one link until one of them ends; returns the link's name.
async fn keep(desk: Desk) -> String {
    let name = desk.link.name.clone();
    let mut keepers = JoinSet::new();
    keepers.spawn(access_keeper::run(desk.clone()));
    keepers.spawn(peer_bundle::run(desk.clone()));
    keepers.spawn(certificate_keeper::run(desk));
    if let Some(Err(error)) = keepers.join_next().await {
        tracing::error!(link = name, %error, "a keeper of this link's credentials broke");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkspan_core::api::link::LinkSpec;

    fn link(name: &str, secret: &str) -> Link {
        let spec = LinkSpec {
            cluster_credentials_secret: Some(secret.into()),
            gateway_identity: Some("spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway".into()),
            ..LinkSpec::default()
        };
        Link::new(name, spec)
    }

    fn names(changed: BTreeSet<String>) -> Vec<String> {
        changed.into_iter().collect()
    }

    #[test]
    fn what_changed_is_told_and_what_vanished_between_lists_too() {
        let mut table = LinkTable::default();
        let list = |table: &mut LinkTable, links: Vec<Link>| {
            assert!(table.take(Event::Init).is_empty());
            for link in links {
                assert!(table.take(Event::InitApply(link)).is_empty());
            }
            names(table.take(Event::InitDone))
        };
        assert!(!table.complete);
        assert_eq!(list(&mut table, vec![link("east", "a"), link("west", "a")]), ["east", "west"]);
        assert!(table.complete);
        assert_eq!(names(table.take(Event::Apply(link("west", "a")))), Vec::<String>::new());
        assert_eq!(names(table.take(Event::Apply(link("west", "b")))), ["west"]);
        assert_eq!(names(table.take(Event::Delete(link("east", "a")))), ["east"]);
        assert_eq!(list(&mut table, vec![link("west", "b"), link("north", "a")]), ["north"]);
        assert_eq!(list(&mut table, vec![]), ["north", "west"]);
    }

    #[test]
    fn a_link_made_anew_under_the_same_name_is_another() {
        let mut table = LinkTable::default();
        table.take(Event::Apply(link("west", "a")));
        let mut anew = link("west", "a");
        anew.metadata.uid = Some("u-2".into());
        assert_eq!(names(table.take(Event::Apply(anew))), ["west"]);
    }
}
