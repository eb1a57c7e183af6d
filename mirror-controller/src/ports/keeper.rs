//! Keeps the allocator's cursor and freed ports in their ConfigMap, soon after they change.

use crate::{ports::store, world::World};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use linkspan_core::{
    api::labels::FIELD_MANAGER,
    process::{clock::Clock, shutdown::Shutdown},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(500);
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// Writes until the shutdown, while `leader` holds `true`.
pub async fn keep(
    world: Arc<World>,
    client: Client,
    namespace: String,
    leader: watch::Receiver<bool>,
    clock: Clock,
    shutdown: Shutdown,
) {
    let api = Api::<ConfigMap>::namespaced(client, &namespace);
    let mut changes = world.changes();
    let mut written: Option<u64> = None;
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        sleep(GATHER).await;
        let now = clock.now();
        let state = world.read(|s| s.ports.as_ref().map(|p| (p.version(), p.saved(now))));
        let Some((version, saved)) = state.filter(|_| *leader.borrow()) else {
            written = None;
            continue;
        };
        let known = written == Some(version);
        if known || (written.is_none() && version == 0) {
            continue;
        }
        let config_map = store::write(&namespace, &saved);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match timeout(WRITE_TIMEOUT, api.patch(store::NAME, &params, &Patch::Apply(&config_map))).await {
            Ok(Ok(_)) => written = Some(version),
            Ok(Err(error)) => {
                tracing::warn!(%error, "ConfigMap linkspan-ports cannot be written; trying again");
            }
            Err(_) => tracing::warn!("writing ConfigMap linkspan-ports took too long; trying again"),
        }
        if written != Some(version) {
            // Nothing else may change for long: look again soon.
            sleep(Duration::from_secs(2)).await;
            changes.mark_changed();
        }
    }
}
