#!/usr/bin/env bash
# Runs each fuzz target under libFuzzer for FUZZ_SECONDS (60) on the stable toolchain: counters are put in by flags of
# code generation that need no other. What is found new goes to the cache; an input that fails to the target's corpus.
# Arguments: the targets to run, as <crate>/<target>; without any, all of them.
set -euo pipefail
cd "$(dirname "$0")"
repo=$(cd ../.. && pwd)
seconds=${FUZZ_SECONDS:-60}
cache=${LINKSPAN_CACHE:-$HOME/.cache/linkspan}/fuzz
mkdir -p "$cache"

command -v c++ >/dev/null || { echo "missing: a C++ compiler, which builds libFuzzer: apt-get install g++"; exit 1; }
# The versions that the product is built with.
cp "$repo/Cargo.lock" Cargo.lock
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are for what is fuzzed, not for build scripts.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$cache/target cargo build --release --target "$host" --quiet

if (($# == 0)); then
  for folder in "$repo"/*/tests/fuzz/corpus/*/; do
    of=${folder#"$repo"/}
    set -- "$@" "${of%%/*}/$(basename "$folder")"
  done
fi
failed=()
for target in "$@"; do
  corpus=$repo/${target%%/*}/tests/fuzz/corpus/${target#*/}
  found=$cache/found/$target
  mkdir -p "$found"
  echo "== $target, $seconds s"
  FUZZ_TARGET=$target "$cache/target/$host/release/linkspan-fuzz" "$found" "$corpus" \
    -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$corpus/failed-" || failed+=("$target")
done
if ((${#failed[@]} > 0)); then
  echo "failed: ${failed[*]}; the inputs are kept as failed-* in the targets' corpora"
  exit 1
fi
echo "no input of $# targets failed"
