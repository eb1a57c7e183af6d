//! One tunnel connection of a linked cluster's gateway: flow after flow.

use crate::{
    ingress::{
        account_table::AccountTable,
        authorize::{Policy, Question, authorize, authorize_peer},
        caller::Caller,
        connect::{Backends, connect},
        gate::{Connected, Gate},
        service_table::ServiceTable,
    },
    mtls::{credentials::Credentials, expiry::Expiry, peer::Peer},
    record::{Direction, FlowLabels, Metrics, Record, Traffic},
    shared::Shared,
    splice::{End, Role, splice},
    tunnel::{channel::Channel, settle::settle, socket},
    wire::{Event, Frame, Open},
};
use linkspan_core::{
    api::{labels::GATEWAY, reason::Reason},
    process::{clock::Clock, shutdown::Shutdown},
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Longest time a peer may take to read an answer to its PING.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes between two flows: what was under way when a flow ended here first, and never as much.
const LEFTOVER: usize = 64 * 1024 * 1024;

/// What serving needs to know and to tell.
#[derive(Clone)]
pub struct Context {
    /// Namespace of this installation.
    pub namespace: String,
    /// Name of this pod; empty outside of Kubernetes.
    pub pod_name: String,
    /// Exports and endpoints.
    pub services: Arc<Shared<ServiceTable>>,
    /// Counts on whenever live flows must be asked about again.
    pub doubts: watch::Receiver<u64>,
    /// Accounts of linked clusters.
    pub accounts: Arc<Shared<AccountTable>>,
    /// Ourselves, and whom we deny.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// What callers may use.
    pub gate: Gate,
    /// Endpoints as they behave.
    pub backends: Backends,
    /// What is counted.
    pub metrics: Metrics,
    /// Tells when certificates end.
    pub clock: Clock,
    /// From when on callers are asked to go elsewhere.
    pub leaving: Shutdown,
    /// From when on no flow goes on.
    pub stop: Shutdown,
}

impl Context {
    /// Whether `peer` may use this gateway at all.
    pub(super) fn may_call(&self, peer: &Peer) -> Result<(), Reason> {
        let credentials = self.credentials.borrow().clone();
        self.accounts.read(|accounts| authorize_peer(peer, &self.namespace, accounts, &credentials.denied))
    }

    fn may_open(&self, peer: &Peer, caller: &Caller, open: &Open) -> Result<(), Reason> {
        let credentials = self.credentials.borrow().clone();
        let question = Question { peer, caller, target: &open.target, hops: open.hops };
        self.accounts.read(|accounts| {
            self.services.read(|services| {
                let (namespace, denied) = (self.namespace.as_str(), &credentials.denied);
                authorize(&question, &Policy { namespace, accounts, denied, services, rules: &[] })
            })
        })
    }

    /// Completes with the reason when `open` is no longer allowed, or when all flows must end.
    async fn denied(&self, peer: &Peer, caller: &Caller, open: &Open) -> Reason {
        let mut doubts = self.doubts.clone();
        loop {
            if self.stop.has_started() {
                return Reason::Draining;
            }
            if let Err(reason) = self.may_open(peer, caller, open) {
                return reason;
            }
            // A sender that is gone means that the process is ending.
            if doubts.changed().await.is_err() {
                return Reason::Draining;
            }
        }
    }

    /// Labels of what `peer` is denied. Neither an account that does not live nor a Service that is not exported is
    /// named: callers cannot make up labels.
    fn labels(&self, peer: &Peer, open: Option<&Open>) -> FlowLabels {
        let account = if self.may_call(peer).is_ok() { &peer.identity.service_account } else { "" };
        match open {
            Some(open) if self.services.read(|services| services.is_exported(&open.target)) => {
                FlowLabels::new(Direction::inbound, account, &open.target)
            }
            _ => FlowLabels::nowhere(Direction::inbound, account),
        }
    }
}

/// A connection whose caller has proved who it is.
pub struct Admitted {
    /// The connection.
    pub channel: Channel,
    /// Who is at the other end.
    pub peer: Peer,
    /// Counted until it is dropped.
    pub connected: Connected,
}

/// Serves one connection until its end.
///
/// # Errors
/// When it ended otherwise than by the caller closing it between flows.
pub async fn serve(mut admitted: Box<Admitted>, context: &Context) -> io::Result<()> {
    let one = &mut *admitted;
    let expiry = Expiry::new(one.peer.not_after, context.clock.now(), Instant::now());
    let mut told_to_leave = false;
    let mut leftover = 0;
    // One that may not call at first stays, to be told why when it asks.
    let (may_call, mut doubts) = (context.may_call(&one.peer).is_ok(), context.doubts.clone());
    loop {
        let event = tokio::select! {
            biased;
            () = over(context, expiry) => {
                // In order, so that a caller whose OPEN is under way takes another connection.
                admitted.channel.close();
                return Ok(());
            }
            changed = doubts.changed(), if may_call => {
                if changed.is_ok() && context.may_call(&one.peer).is_ok() {
                    continue;
                }
                admitted.channel.close();
                return Ok(());
            }
            () = leaving(context, expiry), if !told_to_leave => {
                told_to_leave = true;
                one.channel.queue(&Frame::GoAway)?;
                timeout(ANSWER_TIMEOUT, one.channel.flush()).await??;
                continue;
            }
            event = one.channel.event() => match event {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            },
            () = idle_time(context.gate.limits.idle_timeout) => return Ok(()),
        };
        match event {
            Event::Frame(Frame::Open(mut open)) => {
                if !flow(one, &mut open, expiry.ends, context).await {
                    admitted.channel.abort();
                    return Ok(());
                }
                leftover = 0;
            }
            Event::Frame(Frame::Ping { token }) => {
                if !timeout(ANSWER_TIMEOUT, answer(one, token, context)).await?? {
                    return Ok(());
                }
            }
            // What is left of a flow that ended here first.
            Event::Data(data) => {
                leftover += data.len();
                if leftover > LEFTOVER {
                    admitted.channel.abort();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "data without a flow"));
                }
            }
            Event::Frame(_) => {}
        }
    }
}

/// Completes when no flow goes on.
async fn over(context: &Context, expiry: Expiry) {
    tokio::select! {
        () = context.stop.started() => {}
        () = sleep_until(expiry.ends) => {}
    }
}

/// Completes when no new flow is wanted.
async fn leaving(context: &Context, expiry: Expiry) {
    tokio::select! {
        () = context.leaving.started() => {}
        () = sleep_until(expiry.retires) => {}
    }
}

/// Answers a PING. Whether the connection is of use.
async fn answer(one: &mut Admitted, token: u64, context: &Context) -> io::Result<bool> {
    let Admitted { channel, peer, .. } = one;
    let identity = context.credentials.borrow().server.as_ref().map(|s| s.identity.to_string());
    let refused = match (context.may_call(peer), identity) {
        (Ok(()), Some(identity)) => {
            channel.queue(&Frame::Pong { token, identity })?;
            None
        }
        (allowed, _) => Some(allowed.err().unwrap_or(Reason::NoCredentials)),
    };
    if let Some(reason) = refused {
        let detail =
            format!("the account {:?} or its certificate may not call", peer.identity.service_account);
        context.metrics.denied(&context.labels(peer, None), reason, "", &detail);
        channel.queue(&Frame::Refused { generation: 0, reason })?;
    }
    channel.flush().await?;
    Ok(refused.is_none())
}

/// Carries one flow. Whether the connection can carry another.
async fn flow(one: &mut Admitted, open: &mut Open, ends: Instant, context: &Context) -> bool {
    let Admitted { channel, peer, connected } = one;
    // Not kept for as long as the flow lasts: a caller may fill it.
    let caller = Caller::parse(&std::mem::take(&mut open.baggage));
    let allowed = context.may_open(peer, &caller, open).map_err(|reason| (reason, String::new()));
    let counted = allowed.and_then(|()| {
        connected.open().map_err(|limit| (Reason::Limit, format!("more than {} allows", limit.as_str())))
    });
    let _counted = match counted {
        Ok(counted) => counted,
        Err((reason, detail)) => {
            let labels = context.labels(peer, Some(open));
            let asked = if detail.is_empty() { format!("asked for {}", open.target) } else { detail };
            context.metrics.denied(&labels, reason, &caller.to_string(), &asked);
            return refuse(channel, open.generation, reason).await;
        }
    };
    let labels = FlowLabels::new(Direction::inbound, &peer.identity.service_account, &open.target);
    let mut record = Record::open(&context.metrics, labels, caller.to_string());
    let candidates = context.services.read(|services| {
        let never = services.addresses_of(&context.namespace, GATEWAY);
        let zone = services.zone_of(&context.namespace, GATEWAY, &context.pod_name);
        services.endpoints(&open.target, &never, zone)
    });
    let (local, _load) = match Box::pin(connect(candidates, &context.backends, || record.retried())).await {
        Ok(connected) => connected,
        Err((reason, detail)) => {
            record.failed(reason, detail);
            return refuse(channel, open.generation, reason).await;
        }
    };
    let opened = Frame::Opened { generation: open.generation };
    let queued = if open.opened_may_wait { channel.queue_with_next(&opened) } else { channel.queue(&opened) };
    if queued.is_err() {
        return false;
    }
    let local = Arc::new(local);
    // In a box, like the search for an endpoint: what waits holds whatever is moved into it twice, and flows are many.
    let cut = Box::pin(async {
        tokio::select! {
            reason = context.denied(peer, &caller, open) => reason,
            reason = time_over(record.traffic(), context.gate.limits.idle_timeout, ends) => reason,
        }
    });
    let end = splice(channel, local.clone(), open.generation, Role::Called, record.traffic(), cut).await;
    if !matches!(end, End::Finished) {
        socket::reset(&local);
    }
    drop(local);
    end.tell(&mut record);
    let is_last = context.leaving.has_started() || matches!(end, End::Cut(Reason::TlsExpired));
    // Told before the flow's end: a caller that gets its connection back must not use it for another flow. One that
    // cannot be told loses the connection.
    if is_last && !matches!(end, End::Finished) && channel.queue(&Frame::GoAway).is_err() {
        return false;
    }
    settle(channel, open.generation, Role::Called, &end).await
}

async fn refuse(channel: &mut Channel, generation: u32, reason: Reason) -> bool {
    let refused = channel.queue(&Frame::Refused { generation, reason });
    refused.is_ok() && settle(channel, generation, Role::Called, &End::Refused(reason)).await
}

/// Completes after `longest`; zero: never.
async fn idle_time(longest: Duration) {
    if longest.is_zero() {
        std::future::pending::<()>().await;
    } else {
        sleep(longest).await;
    }
}

/// Completes at `ends`, or when nothing has passed for `longest`, at most a quarter of it later; zero: never.
async fn time_over(traffic: &Traffic, longest: Duration, ends: Instant) -> Reason {
    let (mut before, mut quarters) = (traffic.bytes(), 0);
    while quarters < 4 {
        let look = if longest.is_zero() { ends } else { Instant::now() + longest / 4 };
        sleep_until(look.min(ends)).await;
        if look >= ends {
            return Reason::TlsExpired;
        }
        let now = traffic.bytes();
        quarters = if now == before { quarters + 1 } else { 0 };
        before = now;
    }
    Reason::Timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::open(&Metrics::new(), FlowLabels::nowhere(Direction::inbound, ""), String::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_is_idle_an_hour_after_its_last_byte_and_not_before() {
        let (record, hour) = (record(), Duration::from_secs(3600));
        let traffic = record.traffic();
        let began = Instant::now();
        let last = Duration::from_secs(5000);
        let bytes = async {
            for minute in 0..=(last.as_secs() / 60) {
                tokio::time::sleep_until(began + Duration::from_secs(60 * minute)).await;
                traffic.add_down(1);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reason = time_over(traffic, hour, began + 100 * hour) => assert_eq!(reason, Reason::Timeout),
            () = bytes => {}
        }
        let ended = began.elapsed();
        assert!(ended >= last + hour - Duration::from_secs(60) && ended <= last + hour * 5 / 4, "{ended:?}");
        let forever = time_over(traffic, Duration::ZERO, Instant::now() + 1000 * hour);
        assert!(timeout(Duration::from_secs(1_000_000), forever).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_is_over_when_the_certificate_ends_however_busy_or_idle_it_is() {
        let (record, hour) = (record(), Duration::from_secs(3600));
        let traffic = record.traffic();
        for (longest, left) in [(hour, hour / 10), (hour, hour / 2), (Duration::ZERO, 3 * hour)] {
            let ends = Instant::now() + left;
            assert_eq!(time_over(traffic, longest, ends).await, Reason::TlsExpired);
            assert!(ends.elapsed() < Duration::from_secs(1));
        }
    }
}
