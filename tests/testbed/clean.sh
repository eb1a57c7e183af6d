#!/usr/bin/env bash
# Deletes every cluster of kind-configs/ with all that ran in it. With the argument "all" also the images, the Docker
# daemon that the test bed started, and the cache.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

[[ -d $LINKSPAN_CACHE ]] || exit 0
hold_lock
if timeout 10 docker info >/dev/null 2>&1; then
  for config in "$REPO"/kind-configs/*.yaml; do
    name=$(basename "$config" .yaml)
    mapfile -t nodes < <(docker ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$name")
    ((${#nodes[@]} == 0)) || docker rm --force --volumes "${nodes[@]}" >/dev/null
  done
  if [[ ${1:-} == all ]]; then
    mapfile -t images < <(docker image ls --format '{{ .Repository }}:{{ .Tag }}' | grep -E '^linkspan(-testbed)?/' || true)
    ((${#images[@]} == 0)) || docker rmi --force "${images[@]}" >/dev/null
  fi
fi
rm -rf "$LINKSPAN_CACHE/clusters" "$KUBECONFIG"

if [[ ${1:-} == all ]]; then
  pid=$(cat "$LINKSPAN_CACHE/dockerd.pid" 2>/dev/null || true)
  if [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]]; then
    kill "$pid"
    for _ in {1..100}; do [[ -d /proc/$pid ]] || break; sleep 0.2; done
  fi
  rm -rf --one-file-system "$LINKSPAN_CACHE"
fi
