#!/usr/bin/env bash
# Builds the pinned Go programs (Kubernetes, etcd, CoreDNS, kind, helm) into the cache and points <cache>/bin at them.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

prepare_cache
bin=$LINKSPAN_CACHE/tools-$(tools_key)
if [[ ! -d $bin ]]; then
  work=$(mktemp -d "$SCRATCH/tools.XXXXXX")
  minor=${KUBERNETES_VERSION#v1.}
  version=k8s.io/component-base/version
  stamp="-X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}"
  stamp+=" -X $version.gitTreeState=archive -X $version.buildDate=2026-01-01T00:00:00Z"
  cd "$BED/tools"
  # kubeadm and kubelet take their version from the stamp; the other programs have no such variables and ignore it.
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $stamp" -o "$work/" \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubelet,kubeadm,kubectl} \
    go.etcd.io/etcd/server/v3 helm.sh/helm/v3/cmd/helm sigs.k8s.io/kind ./cmd/coredns
  mv "$work/server" "$work/etcd"
  chmod 755 "$work"
  # Another run may have been as quick; either result will do.
  mv -T "$work" "$bin" 2>/dev/null || [[ -d $bin ]]
fi
ln -sfn "$(basename "$bin")" "$LINKSPAN_CACHE/bin.new"
mv -T "$LINKSPAN_CACHE/bin.new" "$LINKSPAN_TOOLS"
find "$LINKSPAN_CACHE" -maxdepth 1 -name 'tools-*' ! -path "$bin" -exec rm -rf {} +
