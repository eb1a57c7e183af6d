//! What is printed and what the charts hold, compared with files and with each other.

#[cfg(test)]
mod chart_docs;
#[cfg(test)]
mod charts;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod helm;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod support;
