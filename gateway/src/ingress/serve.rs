//! One tunnel connection of a linked cluster's gateway: flow after flow.

use crate::{
    ingress::{
        account_table::AccountTable,
        authorize::{Policy, authorize, authorize_caller},
        connect::{Loads, connect},
        service_table::ServiceTable,
    },
    mtls::{credentials::Credentials, peer::Peer},
    record::{Direction, FlowLabels, Metrics, Record},
    shared::Shared,
    splice::{End, Role, splice},
    tunnel::{channel::Channel, settle::settle, socket},
    wire::{Event, Frame, Open},
};
use linkspan_core::{
    api::{labels::GATEWAY, reason::Reason},
    process::shutdown::Shutdown,
};
use std::{io, sync::Arc};
use tokio::sync::watch;

/// What serving needs to know and to tell.
#[derive(Clone)]
pub struct Context {
    /// Namespace of this installation.
    pub namespace: String,
    /// Exports and endpoints.
    pub services: Arc<Shared<ServiceTable>>,
    /// Counts changes of the exports alone, so that live flows are asked about no more often than needed.
    pub exports: watch::Receiver<u64>,
    /// Accounts of linked clusters.
    pub accounts: Arc<Shared<AccountTable>>,
    /// Ourselves, and whom we deny.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Open flows by endpoint.
    pub loads: Loads,
    /// What is counted.
    pub metrics: Metrics,
    /// From when on callers are asked to go elsewhere.
    pub leaving: Shutdown,
    /// From when on no flow goes on.
    pub stop: Shutdown,
}

impl Context {
    fn policy<A>(&self, question: impl FnOnce(&Policy<'_>) -> A) -> A {
        let credentials = self.credentials.borrow().clone();
        self.accounts.read(|accounts| {
            question(&Policy { namespace: &self.namespace, accounts, denied: &credentials.denied })
        })
    }

    fn may_call(&self, caller: &Peer) -> Result<(), Reason> {
        self.policy(|policy| authorize_caller(caller, policy))
    }

    fn may_open(&self, caller: &Peer, open: &Open) -> Result<(), Reason> {
        self.policy(|policy| {
            self.services.read(|services| authorize(caller, &open.target, open.hops, policy, services))
        })
    }

    /// Completes with the reason when `open` is no longer allowed, or when all flows must end.
    async fn denied(&self, caller: &Peer, open: &Open) -> Reason {
        let (mut exports, mut accounts) = (self.exports.clone(), self.accounts.subscribe());
        let mut credentials = self.credentials.clone();
        loop {
            if let Err(reason) = self.may_open(caller, open) {
                return reason;
            }
            // A sender that is gone means that the process is ending.
            tokio::select! {
                changed = exports.changed() => if changed.is_err() { return Reason::Draining },
                changed = accounts.changed() => if changed.is_err() { return Reason::Draining },
                changed = credentials.changed() => if changed.is_err() { return Reason::Draining },
                () = self.stop.started() => return Reason::Draining,
            }
        }
    }
}

/// Serves one connection until its end.
///
/// # Errors
/// When it ended otherwise than by the caller closing it between flows.
pub async fn serve(mut channel: Channel, caller: Peer, context: &Context) -> io::Result<()> {
    let mut told_to_leave = false;
    loop {
        let event = tokio::select! {
            biased;
            () = context.stop.started() => {
                // In order, so that a caller whose OPEN is under way takes another connection.
                channel.close();
                return Ok(());
            }
            () = context.leaving.started(), if !told_to_leave => {
                told_to_leave = true;
                channel.queue(&Frame::GoAway)?;
                channel.flush().await?;
                continue;
            }
            event = channel.event() => match event {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            },
        };
        match event {
            Event::Frame(Frame::Open(open)) => {
                if !flow(&mut channel, &caller, open, context).await {
                    channel.abort();
                    return Ok(());
                }
            }
            Event::Frame(Frame::Ping { token }) => answer(&mut channel, &caller, token, context).await?,
            // What is left of a flow that ended here first.
            Event::Data(_) | Event::Frame(_) => {}
        }
    }
}

async fn answer(channel: &mut Channel, caller: &Peer, token: u64, context: &Context) -> io::Result<()> {
    let identity = context.credentials.borrow().server.as_ref().map(|s| s.identity.to_string());
    match (context.may_call(caller), identity) {
        (Ok(()), Some(identity)) => channel.queue(&Frame::Pong { token, identity })?,
        (allowed, _) => {
            let reason = allowed.err().unwrap_or(Reason::NoCredentials);
            context.metrics.denied(Direction::inbound, &caller.identity.service_account, reason);
            channel.queue(&Frame::Refused { generation: 0, reason })?;
        }
    }
    channel.flush().await
}

/// Carries one flow. Whether the connection can carry another.
async fn flow(channel: &mut Channel, caller: &Peer, open: Open, context: &Context) -> bool {
    let account = &caller.identity.service_account;
    if let Err(reason) = context.may_open(caller, &open) {
        context.metrics.denied(Direction::inbound, account, reason);
        tracing::debug!(account, target = %open.target, caller = open.baggage, %reason, "flow denied");
        return refuse(channel, open.generation, reason).await;
    }
    let labels = FlowLabels::new(Direction::inbound, account, &open.target);
    let mut record = Record::open(&context.metrics, labels, open.baggage.clone());
    let endpoints = context.services.read(|services| {
        let never = services.addresses_of(&context.namespace, GATEWAY);
        services.endpoints(&open.target, &never)
    });
    let (local, _load) = match connect(endpoints, &context.loads).await {
        Ok(connected) => connected,
        Err((reason, detail)) => {
            record.failed(reason, detail);
            return refuse(channel, open.generation, reason).await;
        }
    };
    if channel.queue(&Frame::Opened { generation: open.generation }).is_err() {
        return false;
    }
    let local = Arc::new(local);
    let denied = context.denied(caller, &open);
    let end = splice(channel, local.clone(), open.generation, Role::Called, record.traffic(), denied).await;
    if !matches!(end, End::Finished) {
        socket::reset(&local);
    }
    drop(local);
    end.tell(&mut record);
    settle(channel, open.generation, Role::Called, &end).await
}

async fn refuse(channel: &mut Channel, generation: u32, reason: Reason) -> bool {
    let refused = channel.queue(&Frame::Refused { generation, reason });
    refused.is_ok() && settle(channel, generation, Role::Called, &End::Refused(reason)).await
}
