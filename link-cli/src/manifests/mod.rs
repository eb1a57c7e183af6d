//! What Linkspan puts into clusters, as values: the system, the rights of each part, one link. Pure.

pub mod admission;
pub mod api_access;
pub mod link;
pub mod object;
pub mod optional;
pub mod rights;
pub mod system;
pub mod values;
pub mod workloads;
