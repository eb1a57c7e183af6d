#!/usr/bin/env bash
# One cluster, by name: left alone when it is sound, otherwise made anew; then LoadBalancer addresses and the test images.
# Its kubeconfig is <cache>/clusters/<name>.kubeconfig, its context cluster-<name>.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

name=$1
config=$REPO/kind-configs/$name.yaml
image=$(<"$LINKSPAN_CACHE/node-image")
state=$LINKSPAN_CACHE/clusters/$name
mkdir -p "$LINKSPAN_CACHE/clusters"
kubectl() {
  timeout "${LIMIT:-30}" "$LINKSPAN_TOOLS/kubectl" --kubeconfig "$state.kubeconfig" --context "cluster-$name" "$@"
}
nodes() {
  nodes_of "$name" "$@" | xargs
}

# Sound: made of this image and this configuration, every node running and Ready, the API answering within 30 s.
made_from=$(KEY_EXTRA=$image key "$config" "$BED/load-balancer.yaml")
sound() {
  [[ -f $state.made-from && $(<"$state.made-from") == "$made_from" ]] || return 1
  [[ $(nodes) == "$(nodes --all)" && -n $(nodes) ]] || return 1
  # After a start of the machine its API server still comes up.
  for _ in {1..15}; do
    LIMIT=5 kubectl get --raw /readyz >/dev/null 2>&1 && break
    sleep 2
  done
  kubectl wait node --all --for=condition=Ready --timeout=25s
}

# runc freezes a container's control group for a moment when it starts; a node killed just then leaves it frozen, and with
# version 1 of control groups what is frozen cannot end, nor can its node.
thaw() {
  local node file
  for node in $(docker ps --all --no-trunc --quiet --filter "label=io.x-k8s.kind.cluster=$name"); do
    for file in $(find "/sys/fs/cgroup/freezer/docker/$node" -name freezer.state 2>/dev/null); do
      grep -q THAWED "$file" || echo THAWED >"$file"
    done
  done
}

if ! sound; then
  rm -f "$state.made-from"
  delete=("$LINKSPAN_TOOLS/kind" delete cluster --name "$name" --kubeconfig "$state.scratch")
  "${delete[@]}" || { thaw && "${delete[@]}"; }
  timeout 300 "$LINKSPAN_TOOLS/kind" create cluster --config "$config" --image "$image" --kubeconfig "$state.scratch" --wait 120s
  sed "s/kind-$name/cluster-$name/g" "$state.scratch" >"$state.kubeconfig.new"
  mv "$state.kubeconfig.new" "$state.kubeconfig"
  rm -f "$state.scratch"
  LIMIT=130 kubectl wait node --all --for=condition=Ready --timeout=120s
  # The control plane's images are there; the nodes of an upstream image lack ours.
  load_images "$(nodes)" "$AGENT_IMAGE"

  # LoadBalancer addresses: each cluster has sixty at the end of the docker network's last /24, which docker reaches last.
  subnet=$(docker network inspect kind --format '{{ range .IPAM.Config }}{{ println .Subnet }}{{ end }}' | awk '/\./ && !seen++')
  IFS=./ read -r a b c d bits <<<"$subnet"
  end=$(((a << 24 | b << 16 | c << 8 | d) | (1 << (32 - bits)) - 1))
  case $name in east) first=10 ;; west) first=80 ;; *) first=150 ;; esac
  sed "s/@POOL_PREFIX@/$((end >> 24 & 255)).$((end >> 16 & 255)).$((end >> 8 & 255))/; s/@POOL_FIRST@/$first/; s/@POOL_LAST@/$((first + 59))/" \
    "$BED/load-balancer.yaml" | kubectl apply -f -
  LIMIT=130 kubectl --namespace kube-system wait deployment --all --for=condition=Available --timeout=120s
  LIMIT=130 kubectl --namespace kube-system rollout status daemonset --timeout=120s
  echo "$made_from" >"$state.made-from"
fi
load_images "$(nodes)" "${TEST_IMAGES[@]}"
