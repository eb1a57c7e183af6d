//! Runs all fuzz targets on their corpora and on inputs made from them, so many that the suite stays quick.
//!
//! `FUZZ_RUNS=1000000 cargo t -p linkspan-gateway --test fuzz` runs longer; `make fuzz` runs under libFuzzer, which
//! looks for inputs that reach new code. An input that once failed is kept in `corpus/<target>/` and run each time.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod targets;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};
use targets::{Fuzz, TARGETS};

/// Inputs made for each target, unless `FUZZ_RUNS` says otherwise.
const RUNS: usize = 3000;
/// Longest input that is made.
const LONGEST: usize = 20_000;
/// Pieces that parsers react to.
const WORDS: [&[u8]; 16] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\r\n",
    b"..",
    b".",
    b":",
    b",",
    b"=",
    b";",
    b"%00",
    b"[",
    b"{",
    b"*a",
    b"&a ",
    b"spiffe://",
    b"\xe2\x80\xae",
];

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

/// One input, changed in a few places.
fn changed(seeds: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => {
                let end = rng.random_range(at..=bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let end = rng.random_range(at..=bytes.len().min(at + 64));
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

fn run((name, target): Fuzz, runs: usize) {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus(name)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no corpus");
    for (path, seed) in files.iter().zip(&seeds) {
        assert!(catch_unwind(|| target(seed)).is_ok(), "{name} fails on {}", path.display());
    }
    let mut rng = StdRng::seed_from_u64(4143);
    for _ in 0..runs {
        let input = changed(&seeds, &mut rng);
        if catch_unwind(|| target(&input)).is_err() {
            let path = corpus(name).join(format!("failed-{:016x}", rng.random::<u64>()));
            fs::write(&path, &input).unwrap();
            panic!("{name} fails on an input that is kept in {}", path.display());
        }
    }
    println!("{name}: {} kept inputs and {runs} made ones", seeds.len());
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
