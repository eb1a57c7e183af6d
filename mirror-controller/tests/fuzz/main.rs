//! Runs all fuzz targets on their kept inputs and on inputs made from them.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod targets;

use std::path::Path;

#[test]
fn no_input_breaks_a_parser() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    linkspan_tests::fuzz::run(&corpus, &targets::TARGETS);
}
