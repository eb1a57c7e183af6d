//! Which replica writes: a Lease that one holds and renews.
//!
//! [`election`] decides (pure), [`run`] asks and writes. A standby judges the holder by when it *saw* the Lease change,
//! never by the times written in it, so clocks need not agree. The holder stops leading well before others may take
//! over, and hands over at once when it ends.

pub mod election;

use election::{Election, Step};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use linkspan_core::{
    api::labels::{CONTROLLER, FIELD_MANAGER},
    process::{clock::Clock, kube_client::with_causes, shutdown::Shutdown},
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How often the Lease is renewed by its holder, and looked at by others.
const PERIOD: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Takes part in the election until the shutdown; `leads` holds whether this replica (called `name`) may write.
pub async fn run(
    client: Client,
    namespace: String,
    name: String,
    leads: watch::Sender<bool>,
    clock: Clock,
    shutdown: Shutdown,
) {
    let api = Api::<Lease>::namespaced(client, &namespace);
    let mut election = Election::new(name);
    loop {
        let attempt = turn(&api, &mut election, &clock);
        tokio::select! {
            () = shutdown.started() => break,
            outcome = attempt => if let Err(error) = outcome {
                tracing::warn!(error, "the Lease could not be read or renewed");
            },
        }
        set(&leads, election.leads(Instant::now()));
        tokio::select! {
            () = shutdown.started() => break,
            () = lapses(&election, &leads) => set(&leads, false),
            () = sleep(PERIOD) => {}
        }
    }
    let led = *leads.borrow();
    set(&leads, false);
    if led && let Err(error) = release(&api, &election).await {
        tracing::warn!(
            error,
            "the Lease could not be given back; another replica takes over when it runs out"
        );
    }
}

fn set(leads: &watch::Sender<bool>, value: bool) {
    let changed = leads.send_if_modified(|held| std::mem::replace(held, value) != value);
    if changed {
        tracing::info!(leader = value, "leadership changed");
    }
}

/// Completes when leadership ends for want of renewal.
async fn lapses(election: &Election, leads: &watch::Sender<bool>) {
    match election.until() {
        Some(until) if *leads.borrow() => tokio::time::sleep_until(until).await,
        _ => std::future::pending().await,
    }
}

/// Reads the Lease and does what the election says.
async fn turn(api: &Api<Lease>, election: &mut Election, clock: &Clock) -> Result<(), String> {
    let asked = Instant::now();
    let lease = call(api.get_opt(CONTROLLER)).await?;
    let spec = lease.as_ref().map(|l| l.spec.clone().unwrap_or_default());
    let written = match election.step(spec.as_ref(), asked, clock.now()) {
        Step::Wait => return Ok(()),
        Step::Create(spec) => {
            let metadata = ObjectMeta { name: Some(CONTROLLER.to_owned()), ..ObjectMeta::default() };
            call(api.create(&post(), &Lease { metadata, spec: Some(spec) })).await
        }
        Step::Write(spec) => {
            let Some(mut lease) = lease else { return Ok(()) };
            lease.spec = Some(spec);
            call(api.replace(CONTROLLER, &post(), &lease)).await
        }
    };
    // A conflict means that another replica was quicker: the next turn sees it.
    let lease = written?;
    election.renewed(lease.spec.as_ref(), asked);
    Ok(())
}

async fn release(api: &Api<Lease>, election: &Election) -> Result<(), String> {
    let Some(mut lease) = call(api.get_opt(CONTROLLER)).await? else { return Ok(()) };
    if let Some(spec) = election.released(lease.spec.as_ref()) {
        lease.spec = Some(spec);
        call(api.replace(CONTROLLER, &post(), &lease)).await?;
    }
    Ok(())
}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| with_causes(&error)),
        Err(_) => Err(format!("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())),
    }
}
