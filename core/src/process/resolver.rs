//! Name lookups without libc: executables are static, and their images hold no name service.

use hickory_resolver::{Resolver, TokioResolver};
use std::{net::IpAddr, time::Duration};
use tokio::time::{Instant, timeout};

/// The addresses of a name, and until when they may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All addresses, both families, in the order given.
    pub addresses: Vec<IpAddr>,
    /// How long the answer is good for.
    pub ttl: Duration,
}

/// Looks names up by the system's configuration (`/etc/resolv.conf`, `/etc/hosts`).
#[derive(Clone)]
pub struct Names(TokioResolver);

impl Names {
    /// Longest time a lookup may take.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Reads the system's configuration.
    ///
    /// # Errors
    /// One sentence, when `/etc/resolv.conf` cannot be read.
    pub fn system() -> Result<Self, String> {
        Resolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map(Self)
            .map_err(|e| format!("/etc/resolv.conf cannot be used for name lookups ({e})"))
    }

    /// The addresses of `name`.
    ///
    /// # Errors
    /// One sentence, when there is no address or no answer within [`Names::TIMEOUT`].
    pub async fn lookup(&self, name: &str) -> Result<Answer, String> {
        let found = timeout(Self::TIMEOUT, self.0.lookup_ip(name))
            .await
            .map_err(|_| format!("name {name} was not answered within {} s", Self::TIMEOUT.as_secs()))?
            .map_err(|e| format!("name {name} has no address ({e})"))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(format!("name {name} has no address"));
        }
        let ttl = found.valid_until().saturating_duration_since(Instant::now().into_std());
        Ok(Answer { addresses, ttl })
    }
}
