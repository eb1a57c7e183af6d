//! Who is at the other end, and who we are: certificates whose identities are SPIFFE URIs.

pub mod credentials;
pub mod expiry;
pub mod peer;
pub mod verify;
