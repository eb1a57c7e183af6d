//! Whether each Link's gateway is there, and how far away.

pub mod board;
pub mod latency;
pub mod liveness;
pub mod worker;
