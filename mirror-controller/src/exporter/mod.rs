//! What this cluster lets linked clusters see: one `ExportedService` per exported Service.
//!
//! [`desired`] says what is published (pure), [`table`] holds what is known (pure), `withheld` says of what may not be
//! exported (pure), [`run`] watches and writes.

pub mod desired;
pub mod run;
pub mod table;
mod withheld;
