#!/usr/bin/env bash
# The image of the test bed's own pods in every cluster (pod network, LoadBalancer addresses): busybox and two scripts.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

image_is "$AGENT_IMAGE" "$(agent_key)" && exit 0
work=$(mktemp -d "$SCRATCH/agent.XXXXXX")
mkdir -p "$work"/root/{bin,tmp,host}
tar -C "$work/root" -xf "$LINKSPAN_CACHE/rootfs-$(rootfs_key).tar" ./usr/bin/busybox
mv "$work/root/usr/bin/busybox" "$work/root/bin/busybox"
rm -r "$work/root/usr"
for applet in $("$work/root/bin/busybox" --list); do
  [[ $applet == busybox ]] || ln -s busybox "$work/root/bin/$applet"
done
install -m 755 "$BED"/agent/*.sh "$work/root/bin/"
import_image "$AGENT_IMAGE" "$(agent_key)" "$work/root" 'ENV PATH=/bin'
rm -rf "$work"
