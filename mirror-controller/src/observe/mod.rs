//! Watches: each is a loop that hands over what is there, tries for ever, and says whether it is connected.

pub mod local;
pub mod remote;
pub mod watch;
