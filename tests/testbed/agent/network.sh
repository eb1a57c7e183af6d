#!/bin/sh
# The pod network of the node it runs on: the container runtime's configuration, a route to each other node's pods, and
# masquerading of what leaves the pod subnet. The node's root is at /host: its kubectl, ip and iptables are used.
set -eu

on_node() {
  chroot /host /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

write_cni() {
  [ -n "$1" ] || return 0
  cat >/host/etc/cni/net.d/.linkspan.new <<EOF
{
  "cniVersion": "0.3.1",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "ipam": { "type": "host-local", "dataDir": "/run/cni-ipam-state",
                "ranges": [[{ "subnet": "$1" }]], "routes": [{ "dst": "0.0.0.0/0" }] }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
EOF
  mv /host/etc/cni/net.d/.linkspan.new /host/etc/cni/net.d/10-pods.conflist
}

# A pod address that nobody owns any more is refused here: the node's default route might find an answer outside.
on_node ip route replace unreachable "$POD_SUBNET"
masquerade="-s $POD_SUBNET ! -d $POD_SUBNET -j MASQUERADE"
# shellcheck disable=SC2086
on_node iptables -w 10 -t nat -C POSTROUTING $masquerade 2>/dev/null || on_node iptables -w 10 -t nat -A POSTROUTING $masquerade

# A watch, renewed every ten minutes and whenever the API server goes away; every line is a node that is new or has changed.
while :; do
  timeout 600 /host/usr/bin/kubectl --cache-dir=/tmp/kubectl get nodes --watch \
    -o 'jsonpath={.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.spec.podCIDR}{"\n"}' |
    while read -r name address pods; do
      if [ "$name" = "$NODE_NAME" ]; then
        write_cni "$pods"
      elif [ -n "$pods" ]; then
        on_node ip route replace "$pods" via "$address" || echo "no route to $pods via $address"
      fi
    done
  sleep 1
done
