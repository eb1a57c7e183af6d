#!/usr/bin/env bash
# The image of the clusters' nodes, written to <cache>/node-image: the upstream one where it can be pulled, else one
# assembled from the Debian root, the Go programs, and the files that the kind module ships for its own node image.
# NODE_IMAGE: auto (default), build, or the name of an image.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

built=linkspan-testbed/node:$(node_image_key)
present() {
  docker image inspect "$1" >/dev/null 2>&1
}
choose() {
  echo "$1" >"$LINKSPAN_CACHE/node-image"
  exit 0
}

# pull IMAGE: given up at once when it is refused, after 20 s when no registry has answered, after 15 min in any case.
pull() {
  local log=$LOGS/node-image-pull.log pid waited=0
  timeout 900 docker pull "$1" >"$log" 2>&1 &
  pid=$!
  until grep -q 'Pulling from' "$log" || ! kill -0 "$pid" 2>/dev/null; do
    ((waited++ < 40)) || { kill "$pid"; break; }
    sleep 0.5
  done
  wait "$pid"
}

kind_module() {
  (cd "$BED/tools" && go list -m -f '{{ .Dir }}' sigs.k8s.io/kind)
}
case ${NODE_IMAGE:-auto} in
  auto)
    present "$built" && choose "$built"
    upstream=$(sed -n 's/^const Image = "\(.*\)"$/\1/p' "$(kind_module)/pkg/apis/config/defaults/image.go")
    present "$upstream" && choose "$upstream"
    pull "$upstream" && choose "$upstream"
    ;;
  build)
    present "$built" && choose "$built"
    ;;
  *)
    present "$NODE_IMAGE" || pull "$NODE_IMAGE" || die "the node image $NODE_IMAGE cannot be pulled ($LOGS/node-image-pull.log says why): name another, or leave NODE_IMAGE unset."
    choose "$NODE_IMAGE"
    ;;
esac

"$BED/rootfs.sh"
"$BED/tools.sh"
"$BED/agent-image.sh"
work=$(mktemp -d "$SCRATCH/node.XXXXXX")
builder=linkspan-testbed-node-builder
docker rm -f "$builder" >/dev/null 2>&1 || true

# The root: Debian, kind's files over it, Kubernetes' programs, our manifests.
root=$work/root
mkdir "$root"
tar --numeric-owner -C "$root" -xf "$LINKSPAN_CACHE/rootfs-$(rootfs_key).tar"
cp -R --no-preserve=mode,ownership "$(kind_module)/images/base/files/." "$root/"
chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
# As in the recipe beside those files: a container starts few services, and mounts nothing by itself.
find "$root/lib/systemd/system/sysinit.target.wants/" -name systemd-tmpfiles-setup.service -delete
rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/*
rm -f "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
chroot "$root" systemctl mask systemd-binfmt.service
mkdir -p "$root"/etc/kubernetes/manifests "$root"/opt/cni/bin "$root"/kind/manifests
# Debian's paths are not the ones that kind's units and configuration name.
ln -s /usr/bin/containerd /usr/bin/ctr /usr/bin/containerd-shim-runc-v2 "$root/usr/local/bin/"
for plugin in host-local loopback ptp portmap bridge; do cp "$root/usr/lib/cni/$plugin" "$root/opt/cni/bin/"; done
chroot "$root" ctr oci spec |
  chroot "$root" jq '.hooks.createContainer += [{ "path": "/kind/bin/mount-product-files.sh" }] | del(.process.rlimits)' >"$root/etc/containerd/cri-base.json"
sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
cp "$LINKSPAN_TOOLS"/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
echo "$KUBERNETES_VERSION" >"$root/kind/version"
cp "$BED/node/network.yaml" "$root/kind/manifests/default-cni.yaml"
cp "$BED/node/storage.yaml" "$root/kind/manifests/default-storage.yaml"

# The control plane's images: each one program on an empty root, under the names and paths that kubeadm asks for.
mapfile -t images < <("$LINKSPAN_TOOLS/kubeadm" config images list --kubernetes-version "$KUBERNETES_VERSION")
for image in "${images[@]}"; do
  program=${image##*/} out=$work/image
  program=${program%%:*}
  changes=('ENV PATH=/:/usr/sbin:/usr/bin')
  mkdir "$out"
  case $program in
    pause)
      cp "$root/usr/bin/catatonit" "$out/pause"
      changes+=('ENTRYPOINT ["/pause", "-P"]')
      ;;
    kube-proxy)
      install -D "$LINKSPAN_TOOLS/kube-proxy" "$out/usr/local/bin/kube-proxy"
      # Its plugins are loaded by name, and want libraries of their own.
      mapfile -t plugins < <(cd "$root" && printf '/%s\n' usr/lib/*/xtables/*.so)
      copy_with_libraries "$root" "$out" /usr/sbin/xtables-nft-multi /usr/sbin/conntrack "${plugins[@]}"
      for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$out/usr/sbin/$name"; done
      mkdir -p "$out"/{run,tmp}
      ;;
    *)
      cp "$LINKSPAN_TOOLS/$program" "$out/"
      changes+=("ENTRYPOINT [\"/$program\"]")
      ;;
  esac
  import_image "$image" node "$out" "${changes[@]}"
  rm -r "$out"
done
# The container runtime's configuration asks for the pause image by its own tag.
sandbox=$(sed -n 's/.*sandbox_image = "\(.*\)"/\1/p' "$root/etc/containerd/config.toml")
docker tag "$(printf '%s\n' "${images[@]}" | grep /pause:)" "$sandbox"
images+=("$sandbox")

# Images go into the runtime's store by the runtime itself, in a container that then becomes the image.
import_image "$builder" node "$root"
docker run --detach --name "$builder" --privileged --entrypoint sleep "$builder" 600 >/dev/null
docker exec --detach "$builder" containerd
timeout 30 docker exec "$builder" sh -c 'until ctr version >/dev/null 2>&1; do sleep 0.2; done'
docker save "${images[@]}" "$AGENT_IMAGE" |
  timeout 300 docker exec -i "$builder" ctr -n k8s.io images import --all-platforms --no-unpack --digests - >/dev/null
docker stop --time 5 "$builder" >/dev/null
docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'ENV container=docker' "$builder" "$built" >/dev/null
docker rm "$builder" >/dev/null
docker rmi "$builder" "${images[@]}" >/dev/null
rm -rf "$work"
# What earlier versions of these scripts made goes, unless a cluster still runs on it.
docker image ls --format '{{ .Repository }}:{{ .Tag }}' linkspan-testbed/node | grep -vxF "$built" | xargs -r docker rmi >/dev/null 2>&1 || true
docker image prune --force --filter label=linkspan.key >/dev/null
choose "$built"
