//! One flow of a local pod: lease, OPEN together with the first bytes, splice, give back.

use crate::{
    egress::{http_answer, pod_table::PodTable, port_table::Route},
    mtls::{credentials::Credentials, verify::reason_of},
    record::{Direction, FlowLabels, Metrics, Record},
    shared::Shared,
    splice::{End, Role, splice},
    split::serve::Splits,
    tunnel::{
        dial::DialError,
        links::Pools,
        pool::{Leased, Pool},
        settle::settle,
        socket,
    },
    wire::{Frame, HEADER, Open, data_header},
};
use linkspan_core::{api::reason::Reason, process::shutdown::Shutdown};
use socket2::SockRef;
use std::{
    cell::RefCell,
    io::{self, Read},
    net::IpAddr,
    sync::Arc,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Duration, Instant, sleep_until, timeout_at},
};

/// Most of what is sent along with OPEN.
const FIRST_BYTES: usize = 16 * 1024;
/// Longest time until a flow that cannot be carried is ended.
const PATIENCE: Duration = Duration::from_millis(900);

thread_local! {
    static FIRST: RefCell<Vec<u8>> = RefCell::default();
}

/// What flows need to know and to tell.
#[derive(Clone)]
pub struct Context {
    /// Connections by Link.
    pub pools: Pools,
    /// Callers by address.
    pub pods: Arc<Shared<PodTable>>,
    /// Who we are.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// What is counted.
    pub metrics: Metrics,
    /// From when on no flow goes on.
    pub stop: Shutdown,
    /// What becomes of apexes' traffic.
    pub splits: Arc<Splits>,
}

/// Why a flow was not carried: the word, and one sentence.
type Failure = (Reason, String);

/// Carries the connection `local`, which came from `from`, to where `route` leads.
pub async fn carry(local: TcpStream, from: IpAddr, route: &Route, context: &Context) {
    let cluster = context.credentials.borrow().server.as_ref().map(|s| s.identity.trust_domain.to_string());
    let baggage = context.pods.read(|pods| pods.baggage(from, &cluster.unwrap_or_default()));
    let labels = FlowLabels::new(Direction::outbound, &route.link, &route.target);
    let mut record = Record::open(&context.metrics, labels, baggage);
    // Until the flow has ended well, a close is a reset: a client must not take a cut answer for a whole one.
    socket::reset(&local);
    let local = Arc::new(local);
    let failure = match try_carry(&local, route, context, &mut record).await {
        Ok(end) => {
            end.tell(&mut record);
            refusal(&end)
        }
        Err((reason, detail)) => {
            record.failed(reason, detail);
            Some(reason)
        }
    };
    if let Some(reason) = failure
        && route.http
        && record.traffic().bytes().1 == 0
    {
        let asked = record.traffic().bytes().0 > 0;
        http_answer::answer(&local, asked, reason).await;
    }
}

/// Why nothing was carried, where that is so.
fn refusal(end: &End) -> Option<Reason> {
    match end {
        End::Refused(reason) | End::Reset(reason) => Some(*reason),
        End::Channel(e) | End::Unserved(e) => Some(reason_of(e)),
        End::Finished | End::Local(_) | End::Cut(_) => None,
    }
}

/// Leases and carries; once more on another connection where the first one ended before it can have carried anything.
async fn try_carry(
    local: &Arc<TcpStream>,
    route: &Route,
    context: &Context,
    record: &mut Record,
) -> Result<End, Failure> {
    let pool = context.pools.get(&route.link).ok_or((Reason::NoCredentials, "no such Link".to_owned()))?;
    let until = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let mut leased = lease(&pool, until).await?;
        let first = first.get_or_insert_with(|| {
            let first = first_bytes(local);
            record.traffic().add_up(first.read);
            first
        });
        let generation = leased.channel.next_generation();
        let (target, baggage) = (route.target.clone(), record.caller().to_owned());
        let open = Frame::Open(Open { generation, hops: 1, target, baggage, opened_may_wait: true });
        leased.channel.queue(&open).map_err(|e| internal(&e))?;
        drop(open);
        leased.channel.queue_encoded(&first.frame);
        let ends = leased.ends();
        // In a box: what waits holds whatever is moved into it twice, and flows are many.
        let stop = Box::pin(async {
            tokio::select! {
                () = context.stop.started() => Reason::Draining,
                () = sleep_until(ends) => Reason::TlsExpired,
            }
        });
        let channel = &mut leased.channel;
        let end = splice(channel, local.clone(), generation, Role::Caller, record.traffic(), stop).await;
        if matches!(end, End::Finished) {
            // Failing means that the client is gone already.
            let _ = SockRef::from(&**local).set_linger(None);
        }
        let sent = record.traffic().bytes().0;
        let again = matches!(end, End::Unserved(_)) && sent == first.read as u64 && Instant::now() < until;
        if settle(channel, generation, Role::Caller, &end).await {
            leased.give_back();
        } else {
            leased.channel.abort();
        }
        if !again {
            return Ok(end);
        }
    }
}

/// A connection that was alive a moment ago.
async fn lease(pool: &Pool, until: Instant) -> Result<Leased, Failure> {
    loop {
        let leased = timeout_at(until, pool.lease())
            .await
            .map_err(|_| (Reason::Timeout, "no connection to the link's gateway in time".to_owned()))?
            .map_err(|DialError { reason, detail }| (reason, detail))?;
        if !leased.channel.has_ended() {
            return Ok(leased);
        }
    }
}

/// What the client has sent already.
struct First {
    /// As a DATA frame; empty when there is nothing.
    frame: Vec<u8>,
    /// How many bytes there are.
    read: usize,
}

/// Asked of the socket itself: the runtime does not know yet that a socket this new is readable.
fn first_bytes(local: &TcpStream) -> First {
    FIRST.with_borrow_mut(|buffer| {
        buffer.resize(HEADER + FIRST_BYTES, 0);
        let socket = SockRef::from(local);
        let read = (&*socket).read(&mut buffer[HEADER..]).unwrap_or(0);
        buffer[..HEADER].copy_from_slice(&data_header(read));
        First { frame: if read > 0 { buffer[..HEADER + read].to_vec() } else { Vec::new() }, read }
    })
}

fn internal(error: &io::Error) -> (Reason, String) {
    (Reason::Internal, error.to_string())
}
