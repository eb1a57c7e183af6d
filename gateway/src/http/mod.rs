//! HTTP at egress: requests of a split's apex go to its backends one by one.
//!
//! `strict` refuses what two parsers could read differently (pure), `guard` puts it before hyper, `headers` does what
//! a proxy owes its neighbours (pure), `pool` keeps connections to backends, `proxy` takes one request there and its
//! answer back, `serve` one client's connection.

pub mod answer;
pub mod body;
pub mod guard;
pub mod headers;
pub mod pool;
pub mod proxy;
pub mod serve;
pub mod strict;
