//! The calling side: accepts plain connections of local pods on the ports that our slices name, and carries each
//! over a leased tunnel connection.

pub mod flow;
mod http_answer;
pub mod listeners;
pub mod pod_table;
pub mod port_table;
