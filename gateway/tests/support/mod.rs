//! What tests of the gateway share: certificates, files.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub(crate) mod certs;
pub(crate) mod files;
