//! Runs all fuzz targets on good inputs and on inputs made from them, so many that the suite stays quick:
//! `FUZZ_RUNS=1000000 cargo t -p linkspan-mirror-controller --test fuzz` runs longer. An input that once failed is kept
//! by proptest and run each time.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod seeds;
mod targets;

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use targets::{Fuzz, TARGETS};

/// Inputs made for each target, unless `FUZZ_RUNS` says otherwise.
const RUNS: u32 = 1500;

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index),
    Insert(Index, Vec<u8>),
    /// The rest of another input follows.
    Cross(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let word = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..5),
        prop::sample::select(vec![
            "\0",
            "\r\n",
            ":",
            "{",
            "}",
            "\"",
            "&a ",
            "*a",
            "#",
            "-----",
            "spiffe://",
            "é"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Cut(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Repeat(from, to)),
        (any::<Index>(), word).prop_map(|(at, word)| Edit::Insert(at, word)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Edit::Cross(at, other, from)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit, seeds: &[Vec<u8>]) {
    let range = |length: usize, a: &Index, b: &Index| {
        let (a, b) = (a.index(length + 1), b.index(length + 1));
        a.min(b)..a.max(b)
    };
    match edit {
        Edit::Flip(_, _) if bytes.is_empty() => {}
        Edit::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Edit::Cut(from, to) => drop(bytes.drain(range(bytes.len(), from, to))),
        Edit::Repeat(from, to) => {
            let range = range(bytes.len(), from, to);
            let again: Vec<u8> = bytes[range.clone()].iter().copied().take(500).collect();
            bytes.splice(range.start..range.start, again);
        }
        Edit::Insert(at, word) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, word.iter().copied());
        }
        Edit::Cross(at, other, from) => {
            let other = &seeds[other.index(seeds.len())];
            bytes.truncate(at.index(bytes.len() + 1));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

fn run((name, target): Fuzz, runs: u32) {
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "{name} has no inputs");
    for seed in &seeds {
        target(seed);
    }
    let kept = Box::new(FileFailurePersistence::WithSource("regressions"));
    let config = Config {
        cases: runs,
        source_file: Some(file!()),
        failure_persistence: Some(kept),
        ..Config::default()
    };
    let inputs = (any::<Index>(), proptest::collection::vec(edit(), 1..6));
    let tried = TestRunner::new(config).run(&inputs, |(seed, edits)| {
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for edit in &edits {
            apply(&mut bytes, edit, &seeds);
        }
        target(&bytes);
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: {} good inputs and {runs} made ones", seeds.len());
}

#[test]
fn no_input_breaks_a_parser() {
    #[allow(clippy::disallowed_methods, reason = "this is how a developer asks for a longer run")]
    let runs = std::env::var("FUZZ_RUNS").map_or(RUNS, |text| text.parse().unwrap());
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || run(target, runs));
        }
    });
}
