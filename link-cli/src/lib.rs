//! `link-cli`: installs Linkspan, links clusters, and tells how the links are.
//!
//! * `commands` has one file per command; each asks, decides and prints in that order.
//! * `observe` and `cluster` talk to API servers; nothing else does.
//! * `manifests`, `checks` and `output` are functions of values: what is installed, what is wrong, how it is shown.

pub mod app;
pub mod called_as;
pub mod checks;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod manifests;
pub mod observe;
pub mod output;
pub mod progress;
