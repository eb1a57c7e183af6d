//! One watch of one kind of object, as a loop that never gives up.
//!
//! Guarantees: after every break the listener either gets every change that was missed or a [`Seen::All`]; after
//! [`Seen::Lost`] comes a [`Seen::Up`] once the API server answers again. Each object is made small as it arrives, so
//! that no list of whole objects is ever held.

use crate::{metrics::Watches, pause::pause};
use futures::{StreamExt, pin_mut};
use kube::{
    Api, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use linkspan_core::process::{backoff::Backoff, kube_client::with_causes};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long the API server may keep one watch request open.
const SERVER_TIMEOUT: u32 = 240;
/// Longest that a list page or the start of a watch may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects per page of a list: what is held of them as a whole at one time.
const PAGE: u32 = 200;

/// What a watch tells.
#[derive(Debug)]
pub enum Seen<T> {
    /// A list begins; what it brings comes with [`Seen::All`].
    Begins,
    /// These are all there are.
    All(Vec<T>),
    /// This one was made or changed.
    Now(T),
    /// This one was deleted, or is selected no longer.
    Gone(T),
    /// The API server answers.
    Up,
    /// It does not, or refuses; another try follows.
    Lost(Lost),
}

/// Why a watch broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// One CamelCase word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// How long one request lasts; a connection that died unseen is noticed this late. `None`: four minutes.
    pub request: Option<Duration>,
    /// Where breaks are counted.
    pub count: Option<(Arc<Watches>, &'static str)>,
}

impl Scope {
    /// Objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }

    /// The one object of this name.
    pub fn named(name: &str) -> Self {
        Self { fields: Some(format!("metadata.name={name}")), ..Self::default() }
    }

    /// The same, with a connection that died noticed within `limit`.
    pub fn noticing_within(self, limit: Duration) -> Self {
        Self { request: Some(limit), ..self }
    }

    /// The same, with its breaks counted in `watches` as those of `what`.
    pub fn counted(self, watches: &Arc<Watches>, what: &'static str) -> Self {
        Self { count: Some((watches.clone(), what)), ..self }
    }

    fn broke(&self) {
        if let Some((watches, what)) = &self.count {
            watches.broke(what);
        }
    }

    fn seconds(&self) -> u32 {
        self.request.and_then(|r| u32::try_from(r.as_secs()).ok()).unwrap_or(SERVER_TIMEOUT)
    }

    fn list(&self, continue_token: Option<String>) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(PAGE),
            continue_token,
            ..ListParams::default()
        }
    }

    fn watch(&self) -> WatchParams {
        WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(self.seconds()),
            ..WatchParams::default()
        }
    }
}

/// Watches for ever. `keep` says what is kept of an object, or nothing where it does not matter; `on` is told
/// everything kept, in order, and must not block.
pub async fn follow<K, T>(
    api: Api<K>,
    scope: Scope,
    keep: impl Fn(K) -> Option<T>,
    mut on: impl FnMut(Seen<T>),
) where
    K: Clone + DeserializeOwned + Debug + ResourceExt,
{
    follow_kind(api, scope, keep, |seen| {
        on(seen);
        true
    })
    .await;
}

/// Watches a kind that may cease to exist: until `on` answers a loss with `false`.
pub async fn follow_kind<K, T>(
    api: Api<K>,
    scope: Scope,
    keep: impl Fn(K) -> Option<T>,
    mut on: impl FnMut(Seen<T>) -> bool,
) where
    K: Clone + DeserializeOwned + Debug + ResourceExt,
{
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    let mut version: Option<String> = None;
    loop {
        let result = match &mut version {
            None => {
                on(Seen::Begins);
                list(&api, &scope, &keep).await.map(|(all, at)| {
                    on(Seen::All(all));
                    on(Seen::Up);
                    version = Some(at);
                    Next::GoOn
                })
            }
            Some(at) => {
                let mut on = |seen| {
                    on(seen);
                };
                watch(&api, &scope, at, &keep, &mut on, &mut backoff).await
            }
        };
        match result {
            Ok(Next::GoOn) => {}
            Ok(Next::Relist) => {
                scope.broke();
                version = None;
                pause(&mut backoff).await;
            }
            Err(lost) => {
                scope.broke();
                if !on(Seen::Lost(lost)) {
                    return;
                }
                pause(&mut backoff).await;
            }
        }
    }
}

/// Where to go on.
enum Next {
    /// After what was seen last.
    GoOn,
    /// The server has forgotten where we were.
    Relist,
}

async fn list<K, T>(
    api: &Api<K>,
    scope: &Scope,
    keep: impl Fn(K) -> Option<T>,
) -> Result<(Vec<T>, String), Lost>
where
    K: Clone + DeserializeOwned + Debug,
{
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let page = call(api.list(&scope.list(token))).await?;
        all.extend(page.items.into_iter().filter_map(&keep));
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok((all, page.metadata.resource_version.unwrap_or_default()));
        }
    }
}

async fn watch<K, T>(
    api: &Api<K>,
    scope: &Scope,
    at: &mut String,
    keep: impl Fn(K) -> Option<T>,
    on: &mut impl FnMut(Seen<T>),
    backoff: &mut Backoff,
) -> Result<Next, Lost>
where
    K: Clone + DeserializeOwned + Debug + ResourceExt,
{
    let silence = Duration::from_secs(u64::from(scope.seconds()) + 5);
    let stream = match call(api.watch(&scope.watch(), at)).await {
        Err(lost) if lost.reason == "Expired" => return Ok(Next::Relist),
        other => other?,
    };
    pin_mut!(stream);
    on(Seen::Up);
    loop {
        let event = match timeout(silence, stream.next()).await {
            Err(_) => {
                return Err(Lost { reason: "Unreachable", message: "the connection went silent".to_owned() });
            }
            // The server ends a request after its time.
            Ok(None) => {
                sleep(Duration::from_millis(50)).await;
                return Ok(Next::GoOn);
            }
            Ok(Some(Err(error))) => return lost(&error).map_or(Ok(Next::Relist), Err),
            Ok(Some(Ok(event))) => event,
        };
        backoff.reset();
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                went_on(at, object.resource_version());
                keep(object).map(Seen::Now).into_iter().for_each(&mut *on);
            }
            WatchEvent::Deleted(object) => {
                went_on(at, object.resource_version());
                keep(object).map(Seen::Gone).into_iter().for_each(&mut *on);
            }
            WatchEvent::Bookmark(bookmark) => *at = bookmark.metadata.resource_version,
            WatchEvent::Error(status) => {
                return lost(&kube::Error::Api(status)).map_or(Ok(Next::Relist), Err);
            }
        }
    }
}

fn went_on(at: &mut String, version: Option<String>) {
    if let Some(version) = version {
        *at = version;
    }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Lost> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(lost(&error).unwrap_or_else(|| Lost {
            reason: "Expired",
            message: "the API server has forgotten this version".to_owned(),
        })),
        Err(_) => Err(Lost {
            reason: "Unreachable",
            message: format!("the API server did not answer within {} s", CALL_TIMEOUT.as_secs()),
        }),
    }
}

/// What `error` means; `None` when everything must be listed anew.
fn lost(error: &kube::Error) -> Option<Lost> {
    let told = |reason, message: String| Some(Lost { reason, message });
    match error {
        kube::Error::Api(status) => match status.code {
            410 => None,
            401 => told(
                "Unauthorized",
                format!("the API server does not accept the credentials: {}", status.message),
            ),
            403 => told("Forbidden", format!("the API server refuses it: {}", status.message)),
            404 => told("NotFound", format!("the API server does not know it: {}", status.message)),
            code => told("ApiError", format!("the API server answered {code}: {}", status.message)),
        },
        other => told("Unreachable", with_causes(other)),
    }
}
