#!/usr/bin/env bash
# The docker network that all clusters share, there before kind would make one: on a rig of our own (the daemon is the one
# that docker.sh started) nothing may leave its bridge for the outside, from the clusters' first packet on.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

docker network inspect kind >/dev/null 2>&1 || docker network create --driver bridge kind
pid_file=$LINKSPAN_CACHE/dockerd.pid
if [[ -s $pid_file && $(cat "/proc/$(<"$pid_file")/comm" 2>/dev/null) == dockerd ]]; then
  bridge=br-$(docker network inspect kind --format '{{ .Id }}' | cut -c1-12)
  rule=(-i "$bridge" ! -o "$bridge" -j REJECT)
  iptables -w 10 -C DOCKER-USER "${rule[@]}" 2>/dev/null || iptables -w 10 -I DOCKER-USER "${rule[@]}"
fi
