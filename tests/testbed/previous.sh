#!/usr/bin/env bash
# The version before this one (its commit: previous-version), for tests that it and this one get on: built once, its
# images on the nodes under the tag "previous". Prints the folder of its charts; nothing, where this checkout does not hold
# its commit. `previous.sh programs` only builds.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

PREVIOUS=${PREVIOUS:-$(grep -v '^#' "$BED/previous-version")}
prepare_cache
if ! commit=$(git -C "$REPO" rev-parse --verify --quiet "$PREVIOUS^{commit}"); then
  echo "the version before, commit $PREVIOUS, is not in this checkout: a whole clone has it." >&2
  exit 0
fi
folder=$LINKSPAN_CACHE/previous-${commit:0:12}
if [[ ! -d $folder ]]; then
  work=$(mktemp -d "$SCRATCH/previous.XXXXXX")
  git -C "$REPO" archive "$commit" | tar -x -C "$work"
  # Beside this checkout's own results, so that what both depend on is built once.
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}
  built=$(PROFILE=dev-image programs_folder)/
  (cd "$work" && timeout 2400 cargo build --quiet --profile dev-image --bins -p linkspan-gateway -p linkspan-mirror-controller -p link-cli) >&2
  mkdir "$work/programs"
  cp "$built"/{linkspan-gateway,linkspan-mirror-controller,link-cli} "$work/programs/"
  mkdir "$folder.new"
  mv "$work/programs" "$work/charts" "$folder.new/"
  mv -T "$folder.new" "$folder"
  rm -rf "$work"
  # Cargo puts this checkout's own programs back in their place.
  (cd "$REPO" && timeout 2400 cargo build --quiet --workspace --bins --tests --profile dev-image) >&2
fi
[[ ${1:-} == programs ]] && exit
PROGRAMS=$folder/programs IMAGE_TAG=previous "$BED/images.sh" >&2
echo "$folder/charts"
