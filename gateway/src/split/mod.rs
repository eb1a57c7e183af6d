//! Shares out the traffic of a split's apex among its backends: this cluster's pods and linked clusters' Services.
//!
//! `choose` decides (pure), `port` and its `state` know which backends live, `connect` reaches them, `detect` finds out what a client
//! speaks (pure), `serve` puts it together for one connection; HTTP goes on in [`crate::http`], request by request.
//! Flows that come from a link never get here: ingress dials pods, and never a gateway.

pub mod choose;
pub mod connect;
pub mod detect;
pub mod metrics;
pub mod owned;
pub mod port;
pub mod prefixed;
pub mod serve;
mod state;
pub mod stats;
