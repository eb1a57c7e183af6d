//! TrafficSplits: takes the traffic of an apex over, so that the gateways share it out, and gives it back.
//!
//! ```text
//! watch -> table (what is known, pure) -> decide (which splits hold, and why others do not, pure)
//!                                      -> step   (the next writes at one apex, pure)      -> write, leader only
//!                                      -> tell   (conditions and Events on the split)
//! ```
//!
//! Taking over goes (a) the shadow Service with the apex's selector, (b) our slices of the apex with the gateway pods,
//! (c) one key in the apex's selector, so that Kubernetes empties its own slices. Giving back goes the other way round.
//! At every moment the apex has endpoints that serve it: whatever happens to us, its own pods are among them.

pub mod contest;
pub mod decide;
pub mod hook;
pub mod leaving;
pub mod managed_fields;
pub mod objects;
pub mod policy;
pub mod run;
pub mod services;
pub mod step;
pub mod table;
pub mod tell;
pub mod watch;
pub mod write;

#[cfg(test)]
mod tests;
