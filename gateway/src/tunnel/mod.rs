//! Warm connections to the gateways of linked clusters, leased to one flow at a time.

pub mod addresses;
pub mod channel;
pub mod dial;
pub mod handshake;
pub mod heartbeat;
pub mod link_table;
pub mod links;
pub mod peer_state;
pub mod pieces;
pub mod pool;
pub mod pool_state;
pub mod pulse;
pub mod settle;
pub mod socket;
pub mod stream;
pub mod tls;
