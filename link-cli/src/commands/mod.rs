//! One file per command: its flags, and what it does.

pub mod allow;
pub mod check;
pub mod completion;
pub mod diagnostics;
pub mod export;
pub mod gateways;
pub mod install;
pub mod link;
pub mod link_to;
pub mod linkerd_flags;
pub mod removal;
pub mod services;
pub mod stat;
pub mod uninstall;
pub mod unlink;
pub mod upgrade;
pub mod version;
