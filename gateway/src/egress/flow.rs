//! One flow of a local pod: lease, OPEN together with the first bytes, splice, give back.

use crate::{
    egress::{pod_table::PodTable, port_table::Route},
    mtls::credentials::Credentials,
    record::{Direction, FlowLabels, Metrics, Record},
    shared::Shared,
    splice::{End, Role, splice},
    tunnel::{dial::DialError, links::Pools, settle::settle, socket},
    wire::{Frame, HEADER, Open, data_header},
};
use linkspan_core::{api::reason::Reason, process::shutdown::Shutdown};
use socket2::SockRef;
use std::{
    io::{self, Read},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Duration, timeout},
};

/// Most of what is sent along with OPEN.
const FIRST_BYTES: usize = 16 * 1024;
/// Longest time until a flow that cannot be carried is ended.
const PATIENCE: Duration = Duration::from_millis(950);

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
}

/// Carries the connection `local`, which came from `from`, to where `route` leads.
pub async fn carry(local: TcpStream, from: IpAddr, route: &Route, context: &Context) {
    let cluster = context.credentials.borrow().server.as_ref().map(|s| s.identity.trust_domain.to_string());
    let baggage = context.pods.read(|pods| pods.baggage(from, &cluster.unwrap_or_default()));
    let labels = FlowLabels::new(Direction::outbound, &route.link, &route.target);
    let mut record = Record::open(&context.metrics, labels, baggage.clone());
    if let Err((reason, detail)) = try_carry(local, baggage, route, context, &mut record).await {
        record.failed(reason, detail);
    }
}

async fn try_carry(
    local: TcpStream,
    baggage: String,
    route: &Route,
    context: &Context,
    record: &mut Record,
) -> Result<(), (Reason, String)> {
    // Until the flow has ended well, a close is a reset: a client must not take a cut answer for a whole one.
    socket::reset(&local);
    socket::prepare(&local).map_err(|e| internal(&e))?;
    let pool = context.pools.get(&route.link).ok_or((Reason::NoCredentials, "no such Link".to_owned()))?;
    let mut leased = timeout(PATIENCE, pool.lease())
        .await
        .map_err(|_| (Reason::Timeout, "no connection to the link's gateway in time".to_owned()))?
        .map_err(|DialError { reason, detail }| (reason, detail))?;
    let generation = leased.channel.next_generation();
    let open = Open { generation, hops: 1, target: route.target.clone(), baggage };
    leased.channel.queue(&Frame::Open(open)).map_err(|e| internal(&e))?;
    let (first, read) = first_bytes(&local);
    if read > 0 {
        leased.channel.queue_encoded(&first);
        record.traffic().up.fetch_add(read as u64, Ordering::Relaxed);
    }
    let local = Arc::new(local);
    let stop = async {
        context.stop.started().await;
        Reason::Draining
    };
    let end =
        splice(&mut leased.channel, local.clone(), generation, Role::Caller, record.traffic(), stop).await;
    if matches!(end, End::Finished) {
        // Failing means that the client is gone already.
        let _ = SockRef::from(&*local).set_linger(None);
    }
    drop(local);
    end.tell(record);
    if settle(&mut leased.channel, generation, Role::Caller, &end).await {
        leased.give_back();
    } else {
        leased.channel.abort();
    }
    Ok(())
}

/// What the client has sent already, as a DATA frame, and its length. Asked of the socket itself: the runtime does
/// not know yet that a socket this new is readable.
fn first_bytes(local: &TcpStream) -> (Vec<u8>, usize) {
    let mut frame = vec![0; HEADER + FIRST_BYTES];
    let socket = SockRef::from(local);
    let read = (&*socket).read(&mut frame[HEADER..]).unwrap_or(0);
    frame.truncate(HEADER + read);
    frame[..HEADER].copy_from_slice(&data_header(read));
    (frame, read)
}

fn internal(error: &io::Error) -> (Reason, String) {
    (Reason::Internal, error.to_string())
}
