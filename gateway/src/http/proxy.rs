//! Takes one request to a backend and its answer back.
//!
//! A request goes to another backend while it is certain that none has got it, or when getting it twice does no harm.

use crate::{
    http::{
        answer::{Why, answer, is_grpc},
        body::{Answer, OnEnd, Question, Tracked},
        guard::Raw,
        headers::{is_idempotent, pass, strip, strip_request, upgrade},
        pool::{Checkout, Purpose, Sender, Upstreams, Version},
    },
    split::{
        metrics::{BackendLabels, SplitMetrics},
        owned::Owned,
        port::{Asked, Choice, Nobody, Port, To},
    },
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version as HttpVersion,
    header::{CONNECTION, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use http_body_util::{Either, Empty, Full};
use hyper::{
    body::{Body, Incoming},
    upgrade::{OnUpgrade, on},
};
use hyper_util::rt::TokioIo;
use linkspan_core::{api::reason::Reason, process::shutdown::Shutdown};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{io::copy_bidirectional, sync::oneshot, time::Instant};

/// Most times that one request is sent.
const SENDS: usize = 3;
/// Most pods of one backend that are tried for one request.
const PODS: usize = 3;

/// What all connections of clients need.
#[derive(Clone)]
pub struct Shared {
    /// Connections to backends.
    pub upstreams: Upstreams,
    /// What is counted.
    pub metrics: SplitMetrics,
    /// From when on clients are asked to connect anew.
    pub draining: Shutdown,
    /// Who looks after what outlives a request.
    pub tasks: Owned,
}

/// One client's connection.
pub struct Proxy {
    /// What all share.
    pub shared: Shared,
    /// Where it came in.
    pub port: Arc<Port>,
    /// The client's address.
    pub client: IpAddr,
    /// Who that is.
    pub baggage: String,
    /// Told when the connection changes its protocol.
    pub raw: Raw,
    /// Closed when what came after that is over.
    pub switched: Mutex<Option<oneshot::Receiver<()>>>,
}

/// A request that is not answered by a backend.
struct Failed {
    /// The request, when it was certainly not sent.
    message: Option<Request<Question>>,
    detail: String,
}

impl Proxy {
    /// Answers `request`.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let grpc = is_grpc(request.headers());
        let one = request.version() != HttpVersion::HTTP_2;
        let (at, _) = self.port.now();
        let passed = HeaderValue::try_from(format!("1.1 {}.{}.linkspan", at.route.apex, at.namespace));
        let mut response = match self.try_handle(request, one, passed.ok()).await {
            Ok(response) => response,
            Err(why) => answer(why, grpc),
        };
        let leave = self.shared.draining.has_started() || self.port.now().1;
        if one && leave && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn try_handle(
        &self,
        mut request: Request<Incoming>,
        one: bool,
        apex: Option<HeaderValue>,
    ) -> Result<Response<Answer>, Why> {
        if request.method() == Method::CONNECT {
            return Err(Why::Connect);
        }
        let asked_upgrade = upgrade(request.headers()).filter(|_| one);
        let client_side = asked_upgrade.is_some().then(|| on(&mut request));
        strip_request(request.headers_mut(), asked_upgrade);
        if !apex.is_none_or(|apex| pass(request.headers_mut(), &apex)) {
            return Err(Why::Loop);
        }
        let (mut parts, body) = request.into_parts();
        if one {
            to_origin_form(&mut parts, self.port.now().0.route.apex.as_str());
        }
        let repeatable = body.is_end_stream() && is_idempotent(&parts.method) && client_side.is_none();
        let spare = repeatable.then(|| parts.clone());
        let message = Request::from_parts(parts, Either::Left(body));
        self.send(message, spare, one, client_side).await
    }

    /// Sends `message` until a backend answers; `spare` is its head, when it may be sent twice.
    async fn send(
        &self,
        mut message: Request<Question>,
        spare: Option<Parts>,
        one: bool,
        mut client_side: Option<OnUpgrade>,
    ) -> Result<Response<Answer>, Why> {
        let version = if one { Version::One } else { Version::Two };
        let (mut tried, mut sends) = (Vec::new(), 0);
        loop {
            let choice = self.choose(&message, &tried)?;
            let mut checkout = match self.reach(&choice, version, spare.is_some()).await {
                Ok(checkout) => checkout,
                Err((reason, detail)) => {
                    tracing::debug!(backend = choice.labels.backend, %reason, detail, "backend not reached");
                    self.shared.metrics.retried(&choice.labels);
                    tried.push(choice.index);
                    continue;
                }
            };
            let began = Instant::now();
            self.shared.metrics.request(&choice.labels);
            sends += 1;
            let failed = match send_on(checkout.sender(), message).await {
                Ok(response) => {
                    let labels = choice.labels;
                    return Ok(self.answered(response, checkout, labels, began, client_side.take()));
                }
                Err(failed) => failed,
            };
            let backend = &choice.labels.backend;
            tracing::debug!(backend, detail = failed.detail, "a backend did not answer");
            self.shared.metrics.response(&choice.labels, false, began.elapsed());
            let again = failed.message.or_else(|| {
                spare.clone().map(|parts| Request::from_parts(parts, Either::Right(Empty::new())))
            });
            message = again.filter(|_| sends < SENDS).ok_or(Why::BackendBroke)?;
            // One that was kept may just have grown old; a new one that fails speaks against the backend.
            if !checkout.reused {
                tried.push(choice.index);
            }
        }
    }

    fn choose(&self, message: &Request<Question>, tried: &[usize]) -> Result<Choice, Why> {
        let asked = Asked {
            method: message.method().as_str(),
            path: message.uri().path(),
            headers: message.headers(),
        };
        self.port.choose(Some(&asked), self.client, tried).map_err(|nobody| match nobody {
            Nobody::NoWeight => Why::NoWeight,
            Nobody::NoneLeft => Why::NoBackend,
        })
    }

    async fn reach(
        &self,
        choice: &Choice,
        version: Version,
        repeatable: bool,
    ) -> Result<Checkout, (Reason, String)> {
        let upstreams = &self.shared.upstreams;
        let mut last = (Reason::NoEndpoints, "the Service has no ready endpoint".to_owned());
        match &choice.to {
            To::Remote(remote) => {
                let purpose = Purpose::Remote {
                    link: remote.link.clone(),
                    target: remote.target.to_string(),
                    baggage: self.baggage.clone(),
                };
                return upstreams.checkout(&purpose, version, repeatable).await;
            }
            To::Pods(pods) => {
                for address in pods.iter().take(PODS) {
                    let purpose = Purpose::Pod {
                        namespace: choice.labels.namespace.clone(),
                        service: choice.labels.backend.clone(),
                        address: *address,
                    };
                    match upstreams.checkout(&purpose, version, repeatable).await {
                        Ok(checkout) => return Ok(checkout),
                        Err(why) => last = why,
                    }
                }
            }
        }
        Err(last)
    }

    fn answered(
        &self,
        mut response: Response<Incoming>,
        checkout: Checkout,
        labels: Arc<BackendLabels>,
        began: Instant,
        client_side: Option<OnUpgrade>,
    ) -> Response<Answer> {
        let metrics = &self.shared.metrics;
        let took = began.elapsed();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            metrics.response(&labels, client_side.is_some(), took);
            let Some(client_side) = client_side else { return answer(Why::BackendBroke, false) };
            return self.switch(response, checkout, client_side);
        }
        strip(response.headers_mut(), None);
        let told = response.headers().get("grpc-status").map(|status| status == "0");
        let mut on_end: Option<OnEnd> = None;
        if is_grpc(response.headers()) && told.is_none() && !response.body().is_end_stream() {
            let metrics = metrics.clone();
            on_end = Some(Box::new(move |success| metrics.response(&labels, success, took)));
        } else {
            let success = !response.status().is_server_error() && told.unwrap_or(true);
            metrics.response(&labels, success, took);
        }
        response.map(|body| Either::Left(Tracked::new(body, checkout, on_end)))
    }

    /// From now on the two sides speak another protocol: bytes are carried.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        checkout: Checkout,
        client_side: OnUpgrade,
    ) -> Response<Answer> {
        let agreed = upgrade(response.headers());
        strip(response.headers_mut(), agreed);
        self.raw.set();
        let backend_side = on(&mut response);
        let (over, is_over) = oneshot::channel();
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = Some(is_over);
        self.shared.tasks.spawn(async move {
            // The backend's connection lives as long as this.
            let (_checkout, _over) = (checkout, over);
            let both = async { Ok::<_, hyper::Error>((client_side.await?, backend_side.await?)) };
            let carried = match both.await {
                Ok((client, backend)) => {
                    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                    copy_bidirectional(&mut client, &mut backend).await.map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = carried {
                tracing::debug!(error, "an upgraded connection ended early");
            }
        });
        response.map(|_| Either::Right(Full::new(Bytes::new())))
    }
}

async fn send_on(sender: &mut Sender, message: Request<Question>) -> Result<Response<Incoming>, Failed> {
    let sent = match sender {
        Sender::One(sender) => sender.try_send_request(message).await,
        Sender::Two(sender) => sender.try_send_request(message).await,
    };
    sent.map_err(|mut error| {
        let message = error.take_message();
        Failed { message, detail: error.into_error().to_string() }
    })
}

/// Turns the target into a path, as servers expect it; who is meant goes into Host.
fn to_origin_form(parts: &mut Parts, apex: &str) {
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    if !parts.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(apex)
    {
        parts.headers.insert(HOST, host);
    }
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    parts.version = HttpVersion::HTTP_11;
}
