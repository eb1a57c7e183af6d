//! Load through mirrors, counted on both sides: the program `test-load` is client and server, tests read its reports.

pub mod client;
pub mod report;
pub mod server;
