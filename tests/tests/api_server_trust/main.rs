//! Trust on real Kubernetes APIs, by the real executables: who may do what, who gets which certificate, and what ends
//! access again.

#[cfg(test)]
mod ca;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tokens;
