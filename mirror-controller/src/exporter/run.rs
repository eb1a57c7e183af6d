//! Watches what is exported, and writes what is published while this replica leads.

use crate::{
    apply::{Apply, WriteError, Written},
    exporter::{
        table::{ExportTable, NamedSlice},
        withheld,
    },
    metrics::Watches,
    observe::watch::{Lost, Scope, Seen, follow},
    snapshot::{
        Key,
        packed::PackedObject,
        served_by,
        standing::{KubernetesSlice, State},
    },
    world::World,
};
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::ListParams, core::PartialObjectMeta};
use linkspan_core::{
    api::{
        exported_service::ExportedService,
        labels::{EXPORTED, MANAGED_BY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
        split::shadow_name,
    },
    process::{backoff::Backoff, clock::Clock, readiness::Readiness, shutdown::Shutdown},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// Writes and reads under way at once.
const AT_ONCE: usize = 16;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than anything is waited for.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Which namespaces may export, and who says so to those that may not.
#[derive(Clone)]
pub struct Gate {
    /// A label selector; empty: all may.
    pub selector: String,
    /// Name of this replica.
    pub reporter: String,
    /// The time of day.
    pub clock: Clock,
}

/// The exporter.
#[derive(Clone)]
pub struct Exporter {
    client: Client,
    namespace: String,
    gate: Gate,
    apply: Apply,
    world: Arc<World>,
    watches: Arc<Watches>,
    table: Arc<Mutex<ExportTable>>,
    news: Arc<Notify>,
    services_listed: watch::Sender<bool>,
}

fn tell(what: &str, lost: &Lost) {
    tracing::warn!(reason = lost.reason, error = lost.message, "{what} cannot be watched; trying again");
}

/// A slice that others keep and that matters here.
enum Slice {
    /// Of a Service with the export label.
    Exported(Key, NamedSlice),
    /// Of what may be a mirror, made by Kubernetes.
    OfMirror(Key, KubernetesSlice),
}

impl Exporter {
    /// Publishes in `namespace` through `apply` what is exported in namespaces that `gate` selects.
    pub fn new(
        client: Client,
        namespace: String,
        gate: Gate,
        apply: Apply,
        world: Arc<World>,
        watches: Arc<Watches>,
    ) -> Self {
        let table = ExportTable::new(namespace.clone(), !gate.selector.is_empty());
        let table = Arc::new(Mutex::new(table));
        let services_listed = watch::Sender::new(false);
        Self { client, namespace, gate, apply, world, watches, table, news: Arc::default(), services_listed }
    }

    fn change<R>(&self, change: impl FnOnce(&mut ExportTable) -> R) -> R {
        let result = change(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
        result
    }

    /// Changes what the writer itself looks at anyway.
    fn change_quietly<R>(&self, change: impl FnOnce(&mut ExportTable) -> R) -> R {
        change(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<R>(&self, read: impl FnOnce(&ExportTable) -> R) -> R {
        read(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches which namespaces may export, for ever; the API server itself applies the selector.
    pub async fn gate(self) {
        if self.gate.selector.is_empty() {
            return std::future::pending().await;
        }
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let scope = Scope::labels(self.gate.selector.clone()).counted(&self.watches, "export-namespaces");
        follow(
            api,
            scope,
            |n: PartialObjectMeta<Namespace>| Some(n.name_any()),
            |seen| match seen {
                Seen::All(open) => self.change(|t| t.gate_reset(open)),
                Seen::Now(name) => self.change(|t| t.gate(&name, true)),
                Seen::Gone(name) => self.change(|t| t.gate(&name, false)),
                Seen::Up | Seen::Begins => {}
                Seen::Lost(lost) => tell("namespaces that may export", &lost),
            },
        )
        .await;
    }

    /// Watches the exported Services, for ever.
    pub async fn services(self, readiness: Readiness) {
        let ready = readiness.register("exports", "the first list of exported Services");
        let scope = Scope::labels(format!("{EXPORTED}=true")).counted(&self.watches, "exported-services");
        let keep = |mut service: Service| {
            service.metadata.managed_fields = None;
            service.status = None;
            Some(service)
        };
        follow(Api::<Service>::all(self.client.clone()), scope, keep, |seen| match seen {
            Seen::All(all) => {
                self.change(|t| t.services_reset(all));
                self.services_listed.send_replace(true);
                ready.ready();
            }
            Seen::Now(service) => self.change(|t| t.service_seen(service)),
            Seen::Gone(service) => self.change(|t| t.service_gone(&Key::of(&service), &State::of(&service))),
            Seen::Up | Seen::Begins => {}
            Seen::Lost(lost) => tell("exported Services", &lost),
        })
        .await;
    }

    /// Watches the slices that others keep, for ever; begins when exported Services and Links are known, to keep only
    /// what matters to them.
    pub async fn slices(self) {
        let mut listed = self.services_listed.subscribe();
        let mut changes = self.world.changes();
        if listed.wait_for(|listed| *listed).await.is_err() {
            return;
        }
        while !self.world.read(|s| s.links.synced) {
            if changes.changed().await.is_err() {
                return;
            }
        }
        let scope = Scope::labels(format!("{SLICE_MANAGED_BY}!={MANAGED_BY}"));
        let scope = scope.counted(&self.watches, "exported-slices");
        let keep = |slice: EndpointSlice| self.keep(slice);
        follow(Api::<EndpointSlice>::all(self.client.clone()), scope, keep, |seen| match seen {
            Seen::Begins => self.change(ExportTable::slices_begin),
            Seen::All(all) => {
                let (mut exported, mut of_mirrors) = (Vec::new(), Vec::new());
                for slice in all {
                    match slice {
                        Slice::Exported(service, slice) => exported.push((service, slice)),
                        Slice::OfMirror(service, slice) => of_mirrors.push((service, slice)),
                    }
                }
                self.change(|t| t.slices_reset(exported));
                self.world.change(|s| s.kubernetes_slices_reset(of_mirrors));
            }
            Seen::Now(Slice::Exported(service, slice)) => self.change(|t| t.slice_seen(&service, slice)),
            Seen::Now(Slice::OfMirror(service, slice)) => {
                self.world.change(|s| s.kubernetes_slice_seen(service, slice));
            }
            Seen::Gone(Slice::Exported(service, (name, slice))) => {
                self.change(|t| t.slice_gone(&service, &name, &slice.state));
            }
            Seen::Gone(Slice::OfMirror(_, slice)) => {
                self.world.change(|s| s.kubernetes_slice_gone(&slice.key, &slice.state.uid));
            }
            Seen::Up => {}
            Seen::Lost(lost) => tell("EndpointSlices of exported Services", &lost),
        })
        .await;
    }

    fn keep(&self, slice: EndpointSlice) -> Option<Slice> {
        let service = served_by(&slice)?;
        if self.read(|t| t.is_labelled(&service)) {
            return Some(Slice::Exported(service, (slice.name_any(), PackedObject::new(slice))));
        }
        let may_be_mirror = self.world.read(|s| s.may_be_mirror(&service));
        let (service, slice) = KubernetesSlice::of(&slice).filter(|_| may_be_mirror)?;
        Some(Slice::OfMirror(service, slice))
    }

    /// Watches what is published, for ever: tampering is put right.
    pub async fn published(self) {
        let api = Api::<ExportedService>::namespaced(self.client.clone(), &self.namespace);
        let scope = Scope::default().counted(&self.watches, "published");
        let keep = |export: ExportedService| Some((export.name_any(), PackedObject::new(export)));
        follow(api, scope, keep, |seen| match seen {
            Seen::All(all) => self.change(|t| t.published_reset(all)),
            Seen::Now((name, export)) => self.change(|t| t.published_seen(&name, export)),
            Seen::Gone((name, export)) => self.change(|t| t.published_gone(&name, &export.state)),
            Seen::Up | Seen::Begins => {}
            Seen::Lost(lost) => tell("ExportedServices", &lost),
        })
        .await;
    }

    /// Writes what must be published until the shutdown, while `leader` holds `true`. What fails is tried again with a
    /// growing wait; everything else goes on meanwhile.
    pub async fn write(self, mut leader: watch::Receiver<bool>, shutdown: Shutdown) {
        let mut failing: BTreeMap<String, (Backoff, Instant)> = BTreeMap::new();
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                led = leader.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            self.change(ExportTable::mark_all);
            while *leader.borrow() && !shutdown.has_started() {
                self.list_new_slices().await;
                let mut written = self.write_changes().await;
                written.extend(self.tell_withheld().await.into_iter().map(|name| (name, false)));
                for (name, written) in written {
                    if written {
                        failing.remove(&name);
                    } else {
                        let fresh = || {
                            (
                                Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
                                Instant::now(),
                            )
                        };
                        let (backoff, due) = failing.entry(name).or_insert_with(fresh);
                        *due = Instant::now() + backoff.wait(&mut rand::rng());
                    }
                }
                let next = failing.values().map(|(_, due)| *due).min();
                let next = next.unwrap_or_else(|| Instant::now() + NEVER);
                tokio::select! {
                    () = shutdown.started() => return,
                    () = self.news.notified() => {}
                    () = sleep_until(next) => {
                        let now = Instant::now();
                        let due = failing.iter_mut().filter(|(_, (_, due))| *due <= now);
                        self.change_quietly(|t| due.for_each(|(name, (_, due))| {
                            t.mark(name.clone());
                            *due = now + NEVER;
                        }));
                    }
                    _ = leader.wait_for(|leads| !*leads) => {}
                }
            }
        }
    }

    async fn list_new_slices(&self) {
        let unlisted = self.read(ExportTable::unlisted);
        stream::iter(unlisted)
            .for_each_concurrent(AT_ONCE, |(service, events)| async move {
                let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &service.namespace);
                // Those of a split Service's pods are its shadow's.
                let shadow = shadow_name(&service.name);
                let selector = format!(
                    "{SLICE_SERVICE_NAME} in ({},{shadow}),{SLICE_MANAGED_BY}!={MANAGED_BY}",
                    service.name
                );
                match timeout(READ_TIMEOUT, api.list(&ListParams::default().labels(&selector))).await {
                    Ok(Ok(slices)) => {
                        let slices = slices.items.into_iter();
                        let slices = slices.filter(|slice| served_by(slice).as_ref() == Some(&service));
                        let slices = slices.map(|s| (s.name_any(), PackedObject::new(s))).collect();
                        self.change(|t| t.listed(&service, events, slices));
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%service, %error, "slices of an exported Service cannot be listed; trying again");
                        sleep(Duration::from_secs(1)).await;
                        self.news.notify_one();
                    }
                    Err(_) => self.news.notify_one(),
                }
            })
            .await;
    }

    /// Writes what there is to write; the name of each, and whether it was written.
    async fn write_changes(&self) -> Vec<(String, bool)> {
        let changes = self.change_quietly(ExportTable::take_changes);
        let results = stream::iter(changes)
            .map(|(name, change)| async move {
                let written = self.apply.write(change).await;
                (self.take_in(&name, written), name)
            })
            .buffer_unordered(AT_ONCE);
        results.map(|(written, name)| (name, written)).collect().await
    }

    /// What was written is known at once; the watch repeats it later. Whether it was written.
    fn take_in(&self, name: &String, written: Result<Written, WriteError>) -> bool {
        match written {
            Ok(Written::Export(export)) => {
                let export = PackedObject::new(*export);
                self.change_quietly(|t| t.published_seen(name, export));
            }
            Ok(Written::ExportGone(seen)) => self.change_quietly(|t| t.published_gone(name, &seen.state)),
            Ok(_) => {}
            Err(error) => {
                if matches!(error, WriteError::Failed(..) | WriteError::Forbidden(..)) {
                    tracing::warn!(export = name, %error, "an exported Service cannot be published; trying again");
                }
                return false;
            }
        }
        true
    }

    /// Tells of some Services that their namespace may not export: publishing does not wait for long behind many. The
    /// names of those for which that failed.
    async fn tell_withheld(&self) -> Vec<String> {
        let (withheld, more) = self.change_quietly(|t| (t.take_withheld(AT_ONCE), t.has_withheld()));
        if more {
            self.news.notify_one();
        }
        let Gate { selector, reporter, clock } = &self.gate;
        let told = stream::iter(withheld).map(|(service, uid)| async move {
            let event = withheld::event(&service, &uid, selector, reporter, clock.now());
            match self.apply.tell(event).await.err()? {
                WriteError::NotLeader => {}
                error @ WriteError::Forbidden(..) => {
                    tracing::warn!(%service, %error, "an Event is refused and dropped");
                    return None;
                }
                error => tracing::warn!(%service, %error, "an Event cannot be written; trying again"),
            }
            Some(self.change_quietly(|t| t.withheld_not_told(&service)))
        });
        told.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }
}
