#!/usr/bin/env bash
# Keeps the clusters' traffic on this machine, and joins the pod networks that are meant to be flat. Node restarts undo
# what is set on nodes; every `make clusters` sets it again.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

subnet_of() {
  awk '$1 == "podSubnet:" { print $2 }' "$REPO/kind-configs/$1.yaml"
}

# A pod address that nobody owns any more is refused by the node, whatever its default route leads to.
for cluster in "$@"; do
  for node in $(nodes_of "$cluster"); do
    docker exec "$node" ip route replace unreachable "$(subnet_of "$cluster")"
  done
done

# On a rig of our own (the daemon is the one that docker.sh started) nothing leaves the clusters' bridge for the outside.
pid_file=$LINKSPAN_CACHE/dockerd.pid
if [[ -s $pid_file && $(cat "/proc/$(<"$pid_file")/comm" 2>/dev/null) == dockerd ]]; then
  bridge=br-$(docker network inspect kind --format '{{ .Id }}' | cut -c1-12)
  rule=(-i "$bridge" ! -o "$bridge" -j REJECT)
  iptables -w 10 -C DOCKER-USER "${rule[@]}" 2>/dev/null || iptables -w 10 -I DOCKER-USER "${rule[@]}"
fi

# join A B: A's nodes route to the pods of B's, unchanged in their addresses except where kube-proxy asks for masquerading.
join() {
  local node peer address pods routes=()
  for peer in $(nodes_of "$2"); do
    address=$(docker inspect --format '{{ .NetworkSettings.Networks.kind.IPAddress }}' "$peer")
    pods=$("$LINKSPAN_TOOLS/kubectl" --request-timeout=10s --context "cluster-$2" get node "$peer" -o 'jsonpath={.spec.podCIDR}')
    routes+=("ip route replace $pods via $address")
  done
  local rule="POSTROUTING -s $(subnet_of "$1") -d $(subnet_of "$2") -m mark ! --mark 0x4000/0x4000 -j ACCEPT"
  for node in $(nodes_of "$1"); do
    printf '%s\n' "${routes[@]}" "iptables -w 10 -t nat -C $rule 2>/dev/null || iptables -w 10 -t nat -I $rule" |
      docker exec -i "$node" sh -e
  done
}
if [[ " $* " == *" east "* && " $* " == *" north "* ]]; then
  join east north
  join north east
fi
