//! Hands libFuzzer's inputs to the target that `FUZZ_TARGET` names.
#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = targets::TARGETS.iter().find(|(known, _)| *known == name);
    known.map(|(_, run)| *run).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target"))
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
