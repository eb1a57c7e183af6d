//! What tests of the gateway share: certificates, files.

pub mod certs;
pub mod files;
