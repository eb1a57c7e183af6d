//! Runs fuzz targets without libFuzzer: on the inputs that are kept for them, and on inputs made from these, so many that
//! a test stays quick.
//!
//! `FUZZ_RUNS=1000000 cargo t --test fuzz` runs longer; `make fuzz` runs the same targets under libFuzzer, which looks
//! for inputs that reach new code. An input that once failed is kept in the target's folder and run each time.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

/// A name, which is that of its folder of inputs, and what is done with bytes; it panics when a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Inputs made for each target, unless `FUZZ_RUNS` says otherwise.
const RUNS: usize = 3000;
/// Longest input that is made.
const LONGEST: usize = 20_000;
/// Pieces that parsers react to.
const WORDS: [&[u8]; 22] = [
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
    b"}",
    b"\"",
    b"#",
    b"-----",
    b"\xc3\xa9",
    b" ",
    b"*a",
    b"&a ",
    b"spiffe://",
    b"\xe2\x80\xae",
];

/// Runs all `targets`; each has its folder in `corpus`.
///
/// # Panics
/// When an input breaks one; it is kept then.
pub fn run(corpus: &Path, targets: &[Target]) {
    #[allow(clippy::disallowed_methods, reason = "this is how a developer asks for a longer run")]
    let runs = std::env::var("FUZZ_RUNS").map_or(RUNS, |text| text.parse().expect("FUZZ_RUNS is a number"));
    std::thread::scope(|scope| {
        for (name, target) in targets {
            scope.spawn(move || run_one(name, *target, &corpus.join(name), runs));
        }
    });
}

fn run_one(name: &str, target: fn(&[u8]), folder: &Path, runs: usize) {
    let seeds = seeds(folder);
    assert!(!seeds.is_empty(), "{name} has no inputs in {}", folder.display());
    for (path, seed) in &seeds {
        assert!(catch_unwind(|| target(seed)).is_ok(), "{name} fails on {}", path.display());
    }
    let mut rng = StdRng::seed_from_u64(4143);
    for _ in 0..runs {
        let input = changed(&seeds, &mut rng);
        if catch_unwind(|| target(&input)).is_err() {
            let path = folder.join(format!("failed-{:016x}", rng.random::<u64>()));
            let kept = fs::write(&path, &input);
            panic!("{name} fails on an input that is kept in {}: {kept:?}", path.display());
        }
    }
    println!("{name}: {} kept inputs and {runs} made ones", seeds.len());
}

fn seeds(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|e| e.expect("a folder that can be read").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file that can be read"))).collect()
}

/// One input, changed in a few places.
fn changed(seeds: &[(PathBuf, Vec<u8>)], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = seeds[rng.random_range(0..seeds.len())].1.clone();
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
                let end = rng.random_range(at..=bytes.len().min(at + 500));
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())].1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn an_input_that_breaks_a_target_is_kept_and_found_again() {
        let folder = Scratch::new("fuzz").expect("a folder");
        let corpus = folder.path();
        fs::create_dir_all(corpus.join("picky")).expect("a folder");
        fs::write(corpus.join("picky/seed"), "harmless").expect("a file");
        let picky: fn(&[u8]) = |bytes| assert!(!bytes.contains(&b'{'));
        assert!(catch_unwind(|| run(corpus, &[("picky", picky)])).is_err());
        let kept = seeds(&corpus.join("picky"));
        assert_eq!(kept.len(), 2);
        assert!(kept[0].1.contains(&b'{'), "{kept:?}");
        let again = catch_unwind(|| run_one("picky", picky, &corpus.join("picky"), 0));
        assert!(again.is_err());
    }
}
