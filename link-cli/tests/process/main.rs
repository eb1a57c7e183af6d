//! The executable itself, without a cluster: bad input, completion scripts, kubectl's plugin form.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod completion;
#[cfg(test)]
mod plugin;
#[cfg(test)]
mod support;
