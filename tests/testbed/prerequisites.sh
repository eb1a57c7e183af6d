#!/usr/bin/env bash
# What must be there before anything is built. Each thing that is missing is one sentence that says how to mend it.
# Arguments: what is wanted, of: tools (the Go programs), clusters (kind clusters), rust (the workspace's build).
set -euo pipefail
source "$(dirname "$0")/lib.sh"

missing=0
need() {
  echo "missing: $*" >&2
  missing=1
}
gib_free() {
  local folder=$1
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  df --output=avail --block-size=1G "$folder" | awk 'NR == 2 { print $1 }'
}
wants() {
  [[ " $wanted " == *" $1 "* ]]
}

wanted=$*
free=$(gib_free "$LINKSPAN_CACHE")
if wants tools && [[ ! -d $LINKSPAN_TOOLS ]]; then
  ((free >= 8)) || need "disk space: $LINKSPAN_CACHE has $free GiB free and building the tools takes 8: free some, or set LINKSPAN_CACHE to a folder on a larger disk."
fi
if wants tools; then
  command -v go >/dev/null || need "Go: install Go $(awk '$1 == "go" { print $2 }' "$BED/tools/go.mod") or newer and put it on PATH."
  command -v flock >/dev/null || need "flock: install the package util-linux."
fi
if wants rust; then
  command -v cargo >/dev/null || need "cargo: install Rust $(sed -n 's/^channel = "\(.*\)"/\1/p' "$REPO/rust-toolchain.toml") and put it on PATH."
  command -v cc >/dev/null || need "a C compiler: install the packages gcc and libc6-dev."
fi
if wants clusters; then
  ((EUID == 0)) || need "root: nodes are privileged containers and the rig sets up routes and rules, so run this as root."
  memory=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  if ! timeout 10 docker info >/dev/null 2>&1; then
    command -v apt-get >/dev/null || command -v dockerd >/dev/null || need "Docker: no daemon answers and this is not a Debian to install it on: start Docker and run this again."
    docker_root=/var/lib/docker
  else
    docker_root=$(docker info --format '{{ .DockerRootDir }}')
  fi
  if [[ ! -s $LINKSPAN_CACHE/node-image ]]; then
    command -v debootstrap >/dev/null || command -v apt-get >/dev/null || need "debootstrap: install it; the node image is made of a Debian root."
    docker_free=$(gib_free "$docker_root")
    ((docker_free >= 15)) || need "disk space: $docker_root has $docker_free GiB free and the clusters take 15: free some, or move Docker's data-root to a larger disk."
    ((memory >= 4)) || need "memory: $memory GiB are available and the clusters take 4: stop something, or use a larger machine."
  fi
fi
exit $missing
