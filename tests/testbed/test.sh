#!/usr/bin/env bash
# Every test, fast ones first: those of the workspace (some start API servers), then those on the clusters named as
# arguments. The last line counts them; a test that skipped itself is named with its reason.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

"$BED/prerequisites.sh" tools rust clusters
prepare_cache
cd "$REPO"
count_check "tools" "$BED/tools.sh"
count_check "prometheus" "$BED/prometheus.sh"
count_check "protocol tools" "$BED/protocol-tools.sh"
# Tests that start our programs find them beside themselves. Built together with the tests, since what both depend on has
# more features with tests than without, and would be built twice.
count_check "build" timeout 2400 cargo build --workspace --bins --tests --profile dev-image
count_check "the version before" "$BED/previous.sh" programs
count_tests "workspace tests" timeout 2400 cargo test --workspace --profile dev-image --no-fail-fast -- --show-output
count_check "clusters $*" "$BED/clusters.sh" "$@"
count_check "images" env PROFILE=dev-image "$BED/images.sh"
# Availability under load takes some 25 minutes: it names its skip here; `make test-availability` runs it.
count_tests "cluster tests" timeout 2400 cargo test -p linkspan-tests --profile dev-image --features clusters --test 'clusters_*' --no-fail-fast -- --show-output
summary
