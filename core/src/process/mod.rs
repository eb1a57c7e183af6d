//! What a long-running part needs around its work: the time, when to stop, whether it can serve, how it is asked.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod clock_skew;
pub mod kube_client;
pub mod logging;
pub mod readiness;
pub mod resolver;
pub mod shutdown;
pub mod split_undo;
