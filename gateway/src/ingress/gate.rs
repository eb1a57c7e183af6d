//! Lets callers in as far as the limits allow; what was taken is given back by `Drop`.

use crate::{
    ingress::limits::{Beyond, Limits, Usage},
    record::Metrics,
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::{Instant, sleep_until};

/// What all connections share of the limits.
#[derive(Clone)]
pub struct Gate {
    /// What callers may use.
    pub limits: Limits,
    usage: Arc<Mutex<Usage>>,
    metrics: Metrics,
}

/// A handshake in flight.
pub struct Handshake {
    gate: Gate,
    from: IpAddr,
}

/// A connection of an account.
pub struct Connected {
    gate: Gate,
    account: String,
    /// What it is counted as in metrics; empty when the account does not live.
    counted: String,
}

/// A flow of an account.
pub struct Flowing<'a> {
    connected: &'a Connected,
}

impl Gate {
    /// Nobody is in.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        let usage = Arc::new(Mutex::new(Usage::new(limits, Instant::now())));
        Self { limits, usage, metrics }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more connection may be accepted.
    pub async fn open(&self) {
        let now = Instant::now();
        let at = self.usage().accept_at(now);
        if at > now {
            sleep_until(at).await;
        }
    }

    /// A connection from `from` begins its handshake.
    ///
    /// # Errors
    /// When it may not; counted.
    pub fn arrive(&self, from: IpAddr) -> Result<Handshake, Beyond> {
        let arrived = self.usage().arrive(from, Instant::now());
        self.counted(arrived)?;
        Ok(Handshake { gate: self.clone(), from })
    }

    /// `account` has a connection; `lives` is whether it may call at all.
    ///
    /// # Errors
    /// When it has too many already; counted.
    pub fn connect(&self, account: &str, lives: bool) -> Result<Connected, Beyond> {
        // Counted and told under one lock: told late, a count that has changed meanwhile would stay.
        let mut usage = self.usage();
        let count = self.counted(usage.connect(account))?;
        let counted = if lives { account.to_owned() } else { String::new() };
        if lives {
            self.metrics.inbound_connections(account, count);
        }
        Ok(Connected { gate: self.clone(), account: account.to_owned(), counted })
    }

    fn counted<T>(&self, result: Result<T, Beyond>) -> Result<T, Beyond> {
        result.inspect_err(|limit| self.metrics.beyond(limit.as_str()))
    }
}

impl Connected {
    /// The account opens a flow.
    ///
    /// # Errors
    /// When it has too many already; counted.
    pub fn open(&self) -> Result<Flowing<'_>, Beyond> {
        let opened = self.gate.usage().open(&self.account);
        self.gate.counted(opened)?;
        Ok(Flowing { connected: self })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.gate.usage().settled(self.from);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut usage = self.gate.usage();
        let left = usage.disconnect(&self.account);
        if !self.counted.is_empty() {
            self.gate.metrics.inbound_connections(&self.counted, left);
        }
    }
}

impl Drop for Flowing<'_> {
    fn drop(&mut self) {
        self.connected.gate.usage().close(&self.connected.account);
    }
}
