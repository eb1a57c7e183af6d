//! The called side: accepts tunnels of linked clusters' gateways, checks every flow, and connects it to the
//! Service's endpoints. Nothing is carried that is not exported.

pub mod accept;
pub mod account_table;
pub mod authorize;
pub mod caller;
pub mod choose;
pub mod connect;
pub mod doubts;
pub mod ejection;
pub mod forget;
pub mod gate;
pub mod limits;
pub mod rules;
pub mod serve;
pub mod service_table;
