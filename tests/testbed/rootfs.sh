#!/usr/bin/env bash
# The Debian root that the node image and the test images are made of: one debootstrap, kept as a tar in the cache.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# What a Kubernetes node needs, then what the test images are cut from.
node_packages=systemd,systemd-sysv,dbus,containerd,runc,iptables,nftables,iproute2,conntrack,ethtool,socat,kmod,mount,util-linux,procps,hostname,ca-certificates,iputils-ping,jq,ebtables,containernetworking-plugins,libseccomp2,openssl,curl
image_packages=busybox-static,catatonit,nginx-light,redis-server,msmtp-mta

tar=$LINKSPAN_CACHE/rootfs-$(rootfs_key).tar
[[ -s $tar ]] && exit 0
command -v debootstrap >/dev/null || install_packages debootstrap

mkdir -p "$SCRATCH"
work=$(mktemp -d "$SCRATCH/rootfs.XXXXXX")
# In a mount namespace of its own: whatever debootstrap mounts goes away with it, also when it is killed.
timeout 900 unshare --mount debootstrap --variant=minbase --include="$node_packages,$image_packages" "$DEBIAN_RELEASE" "$work/root"
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale}
tar --numeric-owner -C "$work/root" -cf "$work/root.tar" .
mv "$work/root.tar" "$tar"
rm -rf "$work"
find "$LINKSPAN_CACHE" -maxdepth 1 -name 'rootfs-*.tar' ! -path "$tar" -delete
