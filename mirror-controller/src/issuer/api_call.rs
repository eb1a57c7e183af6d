//! Calls to API servers: bounded in time, errors as one sentence; and following one object by name.

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, time::Duration};

/// Longest time one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("no answer from the API server within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The API server refused.
    #[error("the API server refused: {message}{}", mend(*code))]
    Refused {
        /// HTTP status.
        code: u16,
        /// What it said.
        message: String,
    },
    /// The API server was not reached, or its answer makes no sense.
    #[error("{0}")]
    Broken(String),
}

impl CallError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Timeout | Self::Broken(_) => None,
        }
    }

    /// Whether somebody else wrote in between: read again and decide anew.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

/// What mends a refusal. The API server's own message names the verb, the resource and the account.
pub fn mend(code: u16) -> &'static str {
    match code {
        403 => {
            "; every right that is needed is in the output of `link-cli install` for that cluster (for other accounts, of \
             `link-cli allow`): apply it again there"
        }
        _ => "",
    }
}

/// Waits for `call`, but not for ever.
///
/// # Errors
/// What went wrong.
pub async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(CallError::Timeout),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            Err(CallError::Refused { code: status.code, message: status.message.clone() })
        }
        Ok(Err(error)) => Err(CallError::Broken(with_causes(&error))),
    }
}

/// An error with all its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Follows the object `name`: `None` while it does not exist. Errors are logged and waited out.
pub fn follow<K>(api: Api<K>, name: &str) -> impl Stream<Item = Option<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    follow_or_tell(api, name).filter_map(|seen| futures::future::ready(seen.ok()))
}

/// [`follow`] that hands on why the object cannot be watched, as one sentence, each time that is tried in vain.
pub fn follow_or_tell<K>(
    api: Api<K>,
    name: &str,
) -> impl Stream<Item = Result<Option<K>, String>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let what = name.to_owned();
    watch_object(api, name).default_backoff().map(move |event| {
        event.map_err(|error| {
            let text = with_causes(&error);
            let mend = if text.contains("is forbidden") { mend(403) } else { "" };
            let text = format!("{text}{mend}");
            tracing::warn!(object = what, error = text, "watch broke; trying again");
            text
        })
    })
}
