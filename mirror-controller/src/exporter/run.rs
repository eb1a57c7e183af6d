//! Watches what is exported, and writes what is published while this replica leads.

use crate::{
    apply::{Apply, WriteError, Written},
    exporter::table::ExportTable,
    observe::{
        local::{trimmed_service, trimmed_slice},
        watch::{Scope, Seen, follow},
    },
};
use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, Client, api::ListParams};
use linkspan_core::{
    api::{
        exported_service::ExportedService,
        labels::{EXPORTED, MANAGED_BY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
    },
    process::{backoff::Backoff, readiness::Readiness, shutdown::Shutdown},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// Writes and reads under way at once.
const AT_ONCE: usize = 16;
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The exporter.
#[derive(Clone)]
pub struct Exporter {
    client: Client,
    namespace: String,
    apply: Apply,
    table: Arc<Mutex<ExportTable>>,
    news: Arc<Notify>,
    services_listed: watch::Sender<bool>,
}

impl Exporter {
    /// Publishes in `namespace` through `apply`.
    pub fn new(client: Client, namespace: String, apply: Apply) -> Self {
        let table = Arc::new(Mutex::new(ExportTable::new(namespace.clone())));
        let services_listed = watch::Sender::new(false);
        Self { client, namespace, apply, table, news: Arc::default(), services_listed }
    }

    fn change<R>(&self, change: impl FnOnce(&mut ExportTable) -> R) -> R {
        let result = change(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
        result
    }

    /// Watches the exported Services, for ever.
    pub async fn services(self, readiness: Readiness) {
        let ready = readiness.register("exports", "the first list of exported Services");
        let scope = Scope::labels(format!("{EXPORTED}=true"));
        follow(Api::<Service>::all(self.client.clone()), scope, |seen| match seen {
            Seen::All(all) => {
                self.change(|t| t.services_reset(all.into_iter().map(trimmed_service).collect()));
                self.services_listed.send_replace(true);
                ready.ready();
            }
            Seen::Now(service) => self.change(|t| t.service_seen(trimmed_service(service))),
            Seen::Gone(service) => self.change(|t| t.service_gone(&service)),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(
                    reason = lost.reason,
                    error = lost.message,
                    "exported Services cannot be watched"
                );
            }
        })
        .await;
    }

    /// Watches the slices that others keep, for ever; begins when the exported Services are known, to keep only theirs.
    pub async fn slices(self) {
        let mut listed = self.services_listed.subscribe();
        if listed.wait_for(|listed| *listed).await.is_err() {
            return;
        }
        let scope = Scope::labels(format!("{SLICE_MANAGED_BY}!={MANAGED_BY}"));
        follow(Api::<EndpointSlice>::all(self.client.clone()), scope, |seen| match seen {
            Seen::All(all) => self.change(|t| t.slices_reset(all.into_iter().map(trimmed_slice).collect())),
            Seen::Now(slice) => self.change(|t| t.slice_seen(trimmed_slice(slice))),
            Seen::Gone(slice) => self.change(|t| t.slice_gone(&slice)),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(
                    reason = lost.reason,
                    error = lost.message,
                    "slices of exported Services cannot be watched"
                );
            }
        })
        .await;
    }

    /// Watches what is published, for ever: tampering is put right.
    pub async fn published(self) {
        let api = Api::<ExportedService>::namespaced(self.client.clone(), &self.namespace);
        let trim = |mut export: ExportedService| {
            export.metadata.managed_fields = None;
            export
        };
        follow(api, Scope::default(), |seen| match seen {
            Seen::All(all) => self.change(|t| t.published_reset(all.into_iter().map(trim).collect())),
            Seen::Now(export) => self.change(|t| t.published_seen(trim(export))),
            Seen::Gone(export) => self.change(|t| t.published_gone(&export)),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(
                    reason = lost.reason,
                    error = lost.message,
                    "ExportedServices cannot be watched"
                );
            }
        })
        .await;
    }

    /// Writes what must be published until the shutdown, while `leader` holds `true`.
    pub async fn write(self, mut leader: watch::Receiver<bool>, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                led = leader.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            self.change(ExportTable::mark_all);
            while *leader.borrow() && !shutdown.has_started() {
                self.list_new_slices().await;
                let failed = self.write_changes().await;
                let wait = if failed { backoff.wait(&mut rand::rng()) } else { Duration::MAX };
                if !failed {
                    backoff.reset();
                }
                tokio::select! {
                    () = shutdown.started() => return,
                    () = self.news.notified(), if !failed => {}
                    () = sleep(wait.min(Duration::from_secs(3600))) => {}
                    _ = leader.wait_for(|leads| !*leads) => {}
                }
            }
        }
    }

    async fn list_new_slices(&self) {
        let unlisted = self.table.lock().unwrap_or_else(PoisonError::into_inner).unlisted();
        stream::iter(unlisted)
            .for_each_concurrent(AT_ONCE, |(service, events)| async move {
                let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &service.namespace);
                let selector = format!("{SLICE_SERVICE_NAME}={},{SLICE_MANAGED_BY}!={MANAGED_BY}", service.name);
                match timeout(READ_TIMEOUT, api.list(&ListParams::default().labels(&selector))).await {
                    Ok(Ok(slices)) => {
                        let slices = slices.items.into_iter().map(trimmed_slice).collect();
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

    /// Writes what there is to write; whether any of it failed.
    async fn write_changes(&self) -> bool {
        let changes = self.table.lock().unwrap_or_else(PoisonError::into_inner).take_changes();
        let results = stream::iter(changes)
            .map(|(name, change)| async move { (name, self.apply.write(change).await) })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<(String, Result<Written, WriteError>)>>()
            .await;
        let mut failed = false;
        for (name, result) in results {
            match result {
                Ok(Written::Export(export)) => {
                    let mut export = *export;
                    export.metadata.managed_fields = None;
                    self.change(|t| t.published_seen(export));
                }
                Ok(Written::ExportGone(seen)) => self.change(|t| t.unpublished(&seen)),
                Ok(_) => {}
                Err(error) => {
                    if matches!(error, WriteError::Failed(..)) {
                        tracing::warn!(export = name, %error, "an exported Service cannot be published; trying again");
                    }
                    failed = true;
                    self.change(|t| t.mark(name));
                }
            }
        }
        failed
    }
}
