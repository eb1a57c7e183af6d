//! Reads clusters into values: what a link needs to know of its target, how links are, what is installed.

pub mod certificates;
pub mod exports;
pub mod gateways;
pub mod health;
pub mod installation;
pub mod mirrors;
pub mod pods;
pub mod rights;
pub mod split_stats;
pub mod splits;
pub mod standing;
pub mod target;
