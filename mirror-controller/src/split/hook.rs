//! `--undo-splits`: gives all split Services back before an installation is removed, as Helm's pre-delete hook does.
//!
//! The controllers still run then and would add the key again. So the Lease is taken from them first, for longer than a
//! removal takes; when the installation stays after all, they go on after that.

use crate::config::Config;
use anyhow::{Context as _, anyhow};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{Api, Client, api::PostParams};
use linkspan_core::{
    api::labels::{CONTROLLER, FIELD_MANAGER},
    process::{
        clock::Clock,
        kube_client,
        split_undo::{Patience, undo_splits},
    },
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Who holds the Lease meanwhile.
const HOLDER: &str = "undo-splits";
/// For how long, in seconds.
const HELD: i32 = 300;
/// A leader notices within two seconds, and its last write ends four seconds later.
const HANDOVER: Duration = Duration::from_secs(6);
const CALL: Duration = Duration::from_secs(5);
const TRIES: usize = 10;

/// Gives all back.
///
/// # Errors
/// When this cluster's API cannot be used, or something cannot be given back.
pub async fn undo(config: &Config, clock: &Clock) -> anyhow::Result<()> {
    let client = kube_client::client(kube_client::config_of_daemon(&config.connect()).await?)?;
    if take_lease(&client, &config.namespace, clock).await? {
        sleep(HANDOVER).await;
    }
    let services = undo_splits(&client, Patience::long()).await.map_err(|e| anyhow!(e))?;
    tracing::info!(?services, "split Services were given back");
    Ok(())
}

/// Whether there was a Lease to take.
async fn take_lease(client: &Client, namespace: &str, clock: &Clock) -> anyhow::Result<bool> {
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    for _ in 0..TRIES {
        let found =
            timeout(CALL, api.get_opt(CONTROLLER)).await.context("the Lease cannot be read in time")?;
        let Some(mut lease) = found.context("the Lease cannot be read")? else { return Ok(false) };
        let now = MicroTime(clock.now());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(HOLDER.to_owned());
        spec.lease_duration_seconds = Some(HELD);
        (spec.acquire_time, spec.renew_time) = (Some(now.clone()), Some(now));
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match timeout(CALL, api.replace(CONTROLLER, &params, &lease)).await {
            Ok(Ok(_)) => return Ok(true),
            // The leader renewed it in between.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
            Ok(Err(error)) => return Err(error).context("the Lease cannot be taken"),
            Err(_) => {}
        }
    }
    Err(anyhow!("the Lease {CONTROLLER} cannot be taken from its holder: try again"))
}
