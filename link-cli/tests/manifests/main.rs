//! What is printed and what the charts hold, compared with files and with each other.

mod charts;
mod golden;
mod support;
