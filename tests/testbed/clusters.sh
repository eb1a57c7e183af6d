#!/usr/bin/env bash
# Real multi-node clusters from nothing but Go, root and package registries: every step in its order, a line for each.
# Arguments: names of clusters (files of kind-configs/). Interrupt it anywhere and run it again: it goes on where it was.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

(($# > 0)) || die "name the clusters: CLUSTERS=\"east west\" make clusters"
for name in "$@"; do
  [[ -f $REPO/kind-configs/$name.yaml ]] || die "there is no kind-configs/$name.yaml: CLUSTERS may name $(cd "$REPO/kind-configs" && echo *.yaml | sed 's/\.yaml//g')."
done
"$BED/prerequisites.sh" tools clusters
hold_lock

# kube-proxy and the kubelet each hold several; six nodes need more than the usual 128.
for setting in max_user_instances:8192 max_user_watches:524288; do
  file=/proc/sys/fs/inotify/${setting%:*}
  (($(<"$file") >= ${setting#*:})) || echo "${setting#*:}" >"$file"
done

# The Debian root waits for the network and the Go build for the processor: they run side by side.
"$BED/rootfs.sh" >"$LOGS/rootfs-ahead.log" 2>&1 </dev/null &
rootfs=$!
trap 'kill "$rootfs" 2>/dev/null || true' EXIT
step "docker" "$BED/docker.sh"
step "tools (Kubernetes $KUBERNETES_VERSION, etcd, CoreDNS, kind, helm)" "$BED/tools.sh"
wait "$rootfs" || true
trap - EXIT
step "Debian root" "$BED/rootfs.sh"
step "test bed's agent image" "$BED/agent-image.sh"
step "test images ($CLIENT_IMAGE, $APPS_IMAGE)" "$BED/test-images.sh"
step "node image" "$BED/node-image.sh"
step "network" "$BED/network.sh"

jobs=()
for name in "$@"; do
  step "cluster $name" "$BED/cluster.sh" "$name" &
  jobs+=($!)
done
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
((failed == 0)) || exit 1

# One kubeconfig for all clusters there are.
files=$(printf '%s:' "$LINKSPAN_CACHE"/clusters/*.kubeconfig)
KUBECONFIG=${files%:} kubectl config view --flatten >"$KUBECONFIG.new"
chmod 600 "$KUBECONFIG.new"
mv "$KUBECONFIG.new" "$KUBECONFIG"
step "routes" "$BED/routes.sh" "$@"
echo "clusters $* are up after $SECONDS s; eval \"\$(make -s env)\" makes kubectl see them"
