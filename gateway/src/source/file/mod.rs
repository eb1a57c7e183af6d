//! Fills the tables from one YAML file, for machines without Kubernetes (`--config FILE`). The form is in `form`, for
//! people in `gateway/CONFIG.md`. A file that cannot be used changes nothing.

mod error;
mod follow;
mod form;
mod load;
mod locate;

pub use error::FileError;
pub use follow::start;
pub use form::FileConfig;
pub use load::{Loaded, check, load};

#[cfg(test)]
mod tests;
