//! One connection of a client to an apex: by request where it is HTTP, as a whole otherwise.

use crate::{
    egress::pod_table::PodTable,
    http::{
        guard::Raw,
        pool::{Purpose, Version},
        proxy::{Proxy, Shared as HttpShared},
        serve::serve as serve_http,
    },
    mtls::credentials::Credentials,
    record::{Direction, FlowLabels, Metrics, Record},
    shared::Shared,
    splice::{End, Role, splice},
    split::{
        connect::{Connector, Upstream},
        detect::{LONGEST, Spoken, detect},
        port::{Choice, Nobody, Port, Ports, To},
        prefixed::Prefixed,
    },
    tunnel::{pool::Leased, settle::settle, socket},
    wire::{HEADER, data_header},
};
use bytes::Bytes;
use linkspan_core::{
    api::{names::Target, reason::Reason, split::Protocol},
    process::shutdown::Shutdown,
};
use socket2::SockRef;
use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// A client that speaks first has done so by then; for any other a backend is connected from then on, so that a server
/// that speaks first is heard at once.
const GRACE: Duration = Duration::from_millis(2);
/// Longest time from a client's first byte until it is known what it speaks.
const DETECT: Duration = Duration::from_millis(500);
/// Buffer of each direction between two plain connections.
const COPY: usize = 16 * 1024;

/// Everything that splits work with.
pub struct Splits {
    /// Apexes by port.
    pub ports: Ports,
    /// Reaches backends.
    pub connector: Connector,
    /// What HTTP connections share.
    pub http: HttpShared,
    /// Callers by address.
    pub pods: Arc<Shared<PodTable>>,
    /// Who we are.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Flows are counted here, for the drain too.
    pub flows: Metrics,
    /// From when on HTTP connections take no new request.
    pub closing: Shutdown,
    /// From when on no flow goes on.
    pub stop: Shutdown,
}

/// One connection of a client.
struct Client {
    tcp: TcpStream,
    /// What was read of it already.
    read: Vec<u8>,
    from: IpAddr,
    baggage: String,
}

type Failure = (Reason, String);

/// Serves the connection `tcp` that came from `from` to the gateway's port `gateway_port`.
pub async fn serve(tcp: TcpStream, from: IpAddr, gateway_port: u16, splits: &Splits) {
    let Some(port) = splits.ports.get(gateway_port) else {
        socket::reset(&tcp);
        return;
    };
    let (at, _) = port.now();
    let cluster = splits.credentials.borrow().server.as_ref().map(|s| s.identity.trust_domain.to_string());
    let baggage = splits.pods.read(|pods| pods.baggage(from, &cluster.unwrap_or_default()));
    let target = Target {
        host: None,
        service: at.route.apex.clone(),
        namespace: at.namespace.clone(),
        port: at.route.ports.get(&gateway_port).map_or(0, |p| p.port),
    };
    let labels = FlowLabels::new(Direction::outbound, "", &target);
    let mut record = Record::open(&splits.flows, labels, baggage.clone());
    let client = Client { tcp, read: Vec::new(), from, baggage };
    match Box::pin(try_serve(client, &port, splits, &mut record)).await {
        Ok(()) => record.finished(),
        Err((reason, detail)) => record.failed(reason, detail),
    }
}

async fn try_serve(
    mut client: Client,
    port: &Arc<Port>,
    splits: &Splits,
    record: &mut Record,
) -> Result<(), Failure> {
    // Until a flow has ended well, a close is a reset: a client must not take a cut answer for a whole one.
    socket::reset(&client.tcp);
    socket::prepare(&client.tcp).map_err(|e| internal(&e))?;
    let spoken = match port.protocol() {
        Protocol::Opaque => Spoken::Opaque,
        // What is declared is HTTP, and what is none is told so.
        Protocol::Http => match client.listen(None).await? {
            Spoken::Http2 => Spoken::Http2,
            _ => Spoken::Http1,
        },
        Protocol::Detect => {
            let grace = timeout(GRACE, client.tcp.readable()).await;
            if grace.is_err() {
                return Box::pin(detect_beside(client, port, splits, record)).await;
            }
            client.listen(Some(DETECT)).await?
        }
    };
    match spoken {
        // In boxes, so that an idle connection keeps no room for what it does not do.
        Spoken::Http1 => Box::pin(http(client, Version::One, port, splits)).await,
        Spoken::Http2 => Box::pin(http(client, Version::Two, port, splits)).await,
        Spoken::Opaque | Spoken::More => {
            let (upstream, choice) = Box::pin(connect(&client, port, splits, false)).await?;
            Box::pin(carry(client, upstream, &choice, splits, record)).await
        }
    }
}

/// The client has said nothing yet: connects a backend, and lets whoever speaks first decide.
async fn detect_beside(
    mut client: Client,
    port: &Arc<Port>,
    splits: &Splits,
    record: &mut Record,
) -> Result<(), Failure> {
    let began = Instant::now();
    let (mut upstream, choice) = connect(&client, port, splits, true).await?;
    let server_first = async {
        match &mut upstream {
            Upstream::Pod(tcp, _) => {
                // An error is met again when bytes are carried.
                let _ = tcp.readable().await;
            }
            Upstream::Tunnel(stream) => stream.spoken().await,
        }
    };
    let spoken = tokio::select! {
        biased;
        ready = client.tcp.readable() => {
            ready.map_err(|e| internal(&e))?;
            client.listen(Some(DETECT)).await?
        }
        () = server_first => Spoken::Opaque,
        () = splits.stop.started() => return Err((Reason::Draining, "shutting down".to_owned())),
    };
    tracing::trace!(?spoken, after = ?began.elapsed(), "protocol detected");
    let version = match spoken {
        Spoken::Http1 => Version::One,
        Spoken::Http2 => Version::Two,
        Spoken::Opaque | Spoken::More => {
            port.took(choice.index);
            return carry(client, upstream, &choice, splits, record).await;
        }
    };
    if version == Version::One
        && let Some(purpose) = purpose(&choice, &upstream, &client.baggage)
        && let Ok(checkout) = splits.http.upstreams.fresh(&purpose, Some(upstream)).await
    {
        // The first request finds it.
        checkout.give_back();
    }
    http(client, version, port, splits).await
}

fn purpose(choice: &Choice, upstream: &Upstream, baggage: &str) -> Option<Purpose> {
    Some(match (&choice.to, upstream) {
        (To::Remote(remote), _) => Purpose::Remote {
            link: remote.link.clone(),
            target: remote.target.to_string(),
            baggage: baggage.to_owned(),
        },
        (To::Pods(_), Upstream::Pod(tcp, _)) => Purpose::Pod {
            namespace: choice.labels.namespace.clone(),
            service: choice.labels.backend.clone(),
            address: tcp.peer_addr().ok()?,
        },
        (To::Pods(_), Upstream::Tunnel(_)) => return None,
    })
}

impl Client {
    /// Reads until it is known what the client speaks, for `longest` at most.
    async fn listen(&mut self, longest: Option<Duration>) -> Result<Spoken, Failure> {
        let reading = async {
            loop {
                match detect(&self.read) {
                    Spoken::More => {}
                    spoken => return Ok(spoken),
                }
                self.tcp.readable().await?;
                self.read.reserve(1024);
                match self.tcp.try_read_buf(&mut self.read) {
                    // It has said all it had to say.
                    Ok(0) => return Ok(Spoken::Opaque),
                    Ok(_) if self.read.len() > 2 * LONGEST => return Ok(Spoken::Opaque),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        };
        let late = async {
            match longest {
                Some(longest) => sleep(longest).await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            heard = reading => heard,
            () = late => Ok(Spoken::Opaque),
        };
        heard.map_err(|e| internal(&e))
    }
}

async fn http(client: Client, version: Version, port: &Arc<Port>, splits: &Splits) -> Result<(), Failure> {
    // Ends in order like any HTTP connection; a cut answer is seen by its length.
    let _ = SockRef::from(&client.tcp).set_linger(None);
    let proxy = Arc::new(Proxy {
        shared: splits.http.clone(),
        port: port.clone(),
        client: client.from,
        baggage: client.baggage,
        raw: Raw::default(),
        switched: Mutex::default(),
    });
    let io = Prefixed::new(Bytes::from(client.read), client.tcp);
    let served = serve_http(io, version, proxy.clone(), splits.closing.clone(), splits.stop.clone()).await;
    let switched = proxy.switched.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(over) = switched {
        tokio::select! {
            // Its sender goes with the task that carries the bytes.
            _ = over => {}
            () = splits.stop.started() => return Err((Reason::Draining, "shutting down".to_owned())),
        }
    }
    served.map_err(|detail| (Reason::Internal, detail))
}

/// Connects to whoever's turn it is, and to others when that fails. `ahead`: the turn is not taken yet.
async fn connect(
    client: &Client,
    port: &Arc<Port>,
    splits: &Splits,
    ahead: bool,
) -> Result<(Upstream, Choice), Failure> {
    let mut tried = Vec::new();
    let mut last: Option<Failure> = None;
    loop {
        let next =
            if ahead { port.peek(client.from, &tried) } else { port.choose(None, client.from, &tried) };
        let choice = match next {
            Ok(choice) => choice,
            Err(Nobody::NoWeight) => {
                return Err((Reason::Policy, "all weights of the TrafficSplit are zero".to_owned()));
            }
            Err(Nobody::NoneLeft) => {
                let nobody = || (Reason::NoEndpoints, "no backend of the TrafficSplit is left".to_owned());
                return Err(last.unwrap_or_else(nobody));
            }
        };
        let connected = match &choice.to {
            To::Pods(pods) => splits.connector.pod(pods.clone()).await,
            To::Remote(remote) => splits.connector.remote(remote, &client.baggage).await,
        };
        match connected {
            Ok(upstream) => return Ok((upstream, choice)),
            Err(failure) => {
                splits.http.metrics.retried(&choice.labels);
                tried.push(choice.index);
                last = Some(failure);
            }
        }
    }
}

/// Carries bytes between the two until both have ended.
async fn carry(
    client: Client,
    upstream: Upstream,
    choice: &Choice,
    splits: &Splits,
    record: &mut Record,
) -> Result<(), Failure> {
    let began = Instant::now();
    splits.http.metrics.request(&choice.labels);
    let carried = match upstream {
        Upstream::Pod(tcp, _load) => {
            socket::reset(&tcp);
            between(client, tcp, splits, record).await
        }
        Upstream::Tunnel(stream) => match stream.into_lease() {
            Ok((leased, generation, heard)) => {
                through(client, leased, generation, &heard, splits, record).await
            }
            Err(stream) => between(client, *stream, splits, record).await,
        },
    };
    splits.http.metrics.response(&choice.labels, carried.is_ok(), began.elapsed());
    carried
}

async fn between(
    client: Client,
    mut backend: impl AsyncRead + AsyncWrite + Unpin,
    splits: &Splits,
    record: &mut Record,
) -> Result<(), Failure> {
    let mut local = client.tcp;
    let copying = async {
        backend.write_all(&client.read).await?;
        copy_bidirectional_with_sizes(&mut local, &mut backend, COPY, COPY).await
    };
    let copied = tokio::select! {
        copied = copying => copied.map_err(|e| internal(&e)),
        () = splits.stop.started() => Err((Reason::Draining, "shutting down".to_owned())),
    };
    let (up, down) = copied?;
    record.traffic().add_up(usize::try_from(up).unwrap_or(usize::MAX).saturating_add(client.read.len()));
    record.traffic().add_down(usize::try_from(down).unwrap_or(usize::MAX));
    // Failing means that it is gone already.
    let _ = SockRef::from(&local).set_linger(None);
    Ok(())
}

async fn through(
    client: Client,
    mut leased: Leased,
    generation: u32,
    heard: &[u8],
    splits: &Splits,
    record: &mut Record,
) -> Result<(), Failure> {
    if !client.read.is_empty() {
        let mut frame = Vec::with_capacity(HEADER + client.read.len());
        frame.extend_from_slice(&data_header(client.read.len()));
        frame.extend_from_slice(&client.read);
        leased.channel.queue_encoded(&frame);
        record.traffic().add_up(client.read.len());
    }
    let mut local = client.tcp;
    local.write_all(heard).await.map_err(|e| internal(&e))?;
    record.traffic().add_down(heard.len());
    let local = Arc::new(local);
    let ends = leased.ends();
    let stop = Box::pin(async {
        tokio::select! {
            () = splits.stop.started() => Reason::Draining,
            () = sleep_until(ends) => Reason::TlsExpired,
        }
    });
    let end =
        splice(&mut leased.channel, local.clone(), generation, Role::Caller, record.traffic(), stop).await;
    let finished = matches!(end, End::Finished);
    if finished {
        // Failing means that the client is gone already.
        let _ = SockRef::from(&*local).set_linger(None);
    }
    drop(local);
    let told = end.failure();
    if settle(&mut leased.channel, generation, Role::Caller, &end).await {
        leased.give_back();
    } else {
        leased.channel.abort();
    }
    told.map_or(Ok(()), Err)
}

fn internal(error: &io::Error) -> Failure {
    (Reason::Internal, error.to_string())
}
