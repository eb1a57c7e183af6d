//! Reads clusters into values: what a link needs to know of its target, how links are, what is installed.

pub mod health;
pub mod installation;
pub mod mirrors;
pub mod rights;
pub mod target;
