//! The controller of Linkspan: publishes what is exported, mirrors what linked clusters export, and vouches for gateways.

pub mod credentials;
pub mod issuer;
