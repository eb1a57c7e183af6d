#!/bin/sh
# Gives Services of type LoadBalancer an address of the clusters' docker network: the address is added to eth0 of the
# node this runs on (the control plane's, which no test stops) and written to the Service's status; kube-proxy does the rest.
# POOL_PREFIX, POOL_FIRST and POOL_LAST name the addresses of this cluster. The node's root is at /host.
set -eu

kubectl() {
  timeout 15 /host/usr/bin/kubectl --cache-dir=/tmp/kubectl "$@"
}

on_node() {
  chroot /host /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# One line per Service: namespace, name, type, whether another implementation is asked for, address in the status.
services() {
  kubectl get services --all-namespaces -o 'jsonpath={range .items[*]}{.metadata.namespace}|{.metadata.name}|{.spec.type}|{.spec.loadBalancerClass}|{.status.loadBalancer.ingress[0].ip}{"\n"}{end}'
}

free_address() {
  last=$POOL_FIRST
  while [ "$last" -le "$POOL_LAST" ]; do
    case " $used " in *" $POOL_PREFIX.$last "*) ;; *) echo "$POOL_PREFIX.$last" && return ;; esac
    last=$((last + 1))
  done
  return 1
}

in_pool() {
  [ "${1%.*}" = "$POOL_PREFIX" ] && [ "${1##*.}" -ge "$POOL_FIRST" ] && [ "${1##*.}" -le "$POOL_LAST" ]
}

reconcile() {
  services >/tmp/services || return 1
  failed=0
  used=$(awk -F '|' '$3 == "LoadBalancer" && $5 { print $5 }' /tmp/services | tr '\n' ' ')
  while IFS='|' read -r namespace name type class address; do
    if [ "$type" != LoadBalancer ] || [ -n "$class" ] || [ -n "$address" ]; then continue; fi
    address=$(free_address) || { echo "no address left for $namespace/$name"; continue; }
    # The address first: whoever reads it in the status may use it at once.
    on_node ip address replace "$address/32" dev eth0
    if kubectl patch service --namespace "$namespace" "$name" --subresource=status --type=merge \
      --patch '{"status":{"loadBalancer":{"ingress":[{"ip":"'"$address"'"}]}}}'; then
      used="$used $address"
    else
      failed=1
    fi
  done </tmp/services
  present=$(on_node ip -4 -oneline address show dev eth0 | awk '{ sub("/.*", "", $4); print $4 }')
  for address in $used; do
    if in_pool "$address"; then on_node ip address replace "$address/32" dev eth0; fi
  done
  for address in $present; do
    case " $used " in *" $address "*) continue ;; esac
    if in_pool "$address"; then on_node ip address delete "$address/32" dev eth0; fi
  done
  return $failed
}

# The watch starts with a line for each Service there is; lines that come together are answered together.
while :; do
  timeout 120 /host/usr/bin/kubectl --cache-dir=/tmp/kubectl get services --all-namespaces --watch --output=name |
    while read -r _; do
      # shellcheck disable=SC3045 # busybox has read -t
      while read -r -t 0.2 _; do :; done
      until reconcile; do sleep 1; done
    done
  sleep 1
done
