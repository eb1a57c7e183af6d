#!/usr/bin/env bash
# Routes on the nodes of the clusters named: dead pod addresses are refused, and the pod networks that are meant to be
# flat are joined. A node that restarts loses them; every `make clusters` sets them again.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

subnet_of() {
  awk '$1 == "podSubnet:" { print $2 }' "$REPO/kind-configs/$1.yaml"
}

# on_nodes CLUSTER SCRIPT: runs it on every node of a cluster, on all at once.
on_nodes() {
  local node jobs=() job
  for node in $(nodes_of "$1"); do
    timeout 30 docker exec "$node" sh -ec "$2" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
}

# A pod address that nobody owns any more is refused by the node, whatever its default route leads to.
for cluster in "$@"; do
  on_nodes "$cluster" "ip route replace unreachable $(subnet_of "$cluster")"
done

# join A B: A's nodes route to the pods of B's, unchanged in their addresses except where kube-proxy asks for masquerading.
join() {
  local node peer address pods own far routes=()
  for peer in $(nodes_of "$2"); do
    address=$(docker inspect --format '{{ .NetworkSettings.Networks.kind.IPAddress }}' "$peer")
    pods=$("$LINKSPAN_TOOLS/kubectl" --request-timeout=10s --context "cluster-$2" get node "$peer" -o 'jsonpath={.spec.podCIDR}')
    routes+=("ip route replace $pods via $address")
  done
  own=$(subnet_of "$1") far=$(subnet_of "$2")
  local accept="POSTROUTING -s $own -d $far -m mark ! --mark 0x4000/0x4000 -j ACCEPT"
  on_nodes "$1" "$(printf '%s\n' "${routes[@]}")
iptables -w 10 -t nat -C $accept 2>/dev/null || iptables -w 10 -t nat -I $accept"
}
if [[ " $* " == *" east "* && " $* " == *" north "* ]]; then
  join east north
  join north east
fi
