//! What a long-running part needs around its work.
