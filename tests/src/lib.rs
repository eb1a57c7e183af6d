//! What tests that cross two binaries stand on.
//!
//! From the least to the most powerful: [`api_server::ApiServer`] is a real Kubernetes API as two plain processes,
//! ready in seconds, with faults on demand; [`netns::Network`] gives processes real addresses of their own, and
//! [`wan::Wan`] joins two of them by a line as long and as bad as wanted; [`clusters::Clusters`] are the multi-node
//! kind clusters of the test bed. [`process::Process`] runs our executables and [`wait::eventually`] waits for what
//! they bring about.
//!
//! Three rules hold for all of them. Nothing has a fixed port, name or address, so tests run side by side. Nothing
//! sleeps for time: a test waits for a condition, until a deadline of several times what is promised. Whatever a test
//! starts ends with it, also when it panics or is killed.

pub mod api_server;
pub mod artifacts;
pub mod clusters;
pub mod faults;
pub mod fuzz;
pub mod http;
mod http_faults;
pub mod installation;
pub mod load;
pub mod metrics;
pub mod needs;
pub mod netns;
pub mod process;
pub mod program;
pub mod relay;
pub mod scratch;
pub mod standalone;
pub mod tls;
pub mod tools;
pub mod wait;
pub mod wan;

pub use api_server::{ApiServer, Options};
pub use installation::Installation;
pub use needs::{Need, have};
pub use process::Process;
pub use program::Program;
pub use wait::eventually;
