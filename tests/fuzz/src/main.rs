//! Hands libFuzzer's inputs to the target that `FUZZ_TARGET` names: `<crate>/<target>`.
#![no_main]

#[path = "../../../gateway/tests/fuzz/targets.rs"]
mod gateway;
#[path = "../../../mirror-controller/tests/fuzz/targets.rs"]
mod mirror_controller;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

type Target = fn(&[u8]);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    find(&wanted).unwrap_or_else(|| panic!("FUZZ_TARGET={wanted:?} is no target"))
});

fn find(wanted: &str) -> Option<Target> {
    let (of, name) = wanted.split_once('/')?;
    let targets = match of {
        "gateway" => &gateway::TARGETS[..],
        "mirror-controller" => &mirror_controller::TARGETS[..],
        _ => return None,
    };
    targets.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
