#!/usr/bin/env bash
# Runs each fuzz target under libFuzzer for FUZZ_SECONDS (60) on the stable toolchain: counters are put in by flags of
# code generation that need no other. What is found new goes to the cache; an input that fails to the target's corpus.
# Arguments: the targets to run; without any, all of them.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${FUZZ_SECONDS:-60}
cache=${LINKSPAN_CACHE:-$HOME/.cache/linkspan}/fuzz
corpus=$PWD/../tests/fuzz/corpus
mkdir -p "$cache"

command -v c++ >/dev/null || { echo "missing: a C++ compiler, which builds libFuzzer: apt-get install g++"; exit 1; }
# The versions that the product is built with.
cp ../../Cargo.lock Cargo.lock
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are for what is fuzzed, not for build scripts.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$cache/target cargo build --release --target "$host" --quiet

if (($# == 0)); then
  for folder in "$corpus"/*/; do set -- "$@" "$(basename "$folder")"; done
fi
failed=0
for target in "$@"; do
  mkdir -p "$cache/found/$target"
  echo "== $target, $seconds s"
  FUZZ_TARGET=$target "$cache/target/$host/release/linkspan-gateway-fuzz" "$cache/found/$target" "$corpus/$target" \
    -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$corpus/$target/failed-" || failed=1
done
exit "$failed"
