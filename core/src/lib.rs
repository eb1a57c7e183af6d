//! The vocabulary that all parts of Linkspan share.
//!
//! * [`api`] is what clusters, charts, users and both ends of a link must agree on: resources, labels, names,
//!   identities. It knows no network and no runtime.
//! * [`process`] (feature `process`) is what every long-running part needs around its work: clock, shutdown,
//!   readiness, admin port, back-off, Kubernetes client.

pub mod api;
#[cfg(feature = "process")]
pub mod process;
