//! One set of tasks per Link: a cluster that is not reached delays no other.

pub mod remotes;
pub mod supervisor;
pub mod view;
