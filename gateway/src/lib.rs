//! The gateway: carries plain TCP of one cluster's pods to another cluster's exported Services.
//!
//! A flow's path, calling side to called side: `egress/listeners` -> `egress/flow` -> `tunnel/pool` -> [`splice`] ->
//! [`wire`] over `tunnel/channel` -> `ingress/accept` -> `ingress/serve` -> `ingress/authorize` ->
//! `ingress/connect`. What is known comes from `source/` and lies in tables (`*_table`, pure).

pub mod admin;
pub mod app;
pub mod config;
pub mod drain;
pub mod egress;
pub mod http;
pub mod ingress;
pub mod mtls;
pub mod probe;
pub mod rate;
pub mod record;
pub mod shared;
pub mod source;
pub mod splice;
pub mod split;
pub mod system;
pub mod tunnel;
pub mod wire;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;
