#!/usr/bin/env bash
# Prints what a shell needs to use the clusters, the tools and link-cli: eval "$(make -s env)".
set -euo pipefail
source "$(dirname "$0")/lib.sh"

for name in LINKSPAN_CACHE LINKSPAN_TOOLS KUBECONFIG; do printf 'export %s=%q\n' "$name" "${!name}"; done
# shellcheck disable=SC2016 # PATH is for the reader to expand
printf 'export PATH=%q:%q:"$PATH"\n' "$LINKSPAN_TOOLS" "$(programs_folder)"
