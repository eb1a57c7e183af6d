#!/usr/bin/env bash
# Shows that the clusters reach each other: a web server in west, called from a pod in east through a NodePort of a west
# node and through west's LoadBalancer address.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

west() { timeout 90 kubectl --context cluster-west "$@"; }
east() { timeout 90 kubectl --context cluster-east "$@"; }

west apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: { name: demo-web, namespace: default }
spec:
  replicas: 2
  selector: { matchLabels: { app: demo-web } }
  template:
    metadata: { labels: { app: demo-web } }
    spec:
      containers:
      - { name: web, image: $APPS_IMAGE, ports: [{ containerPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: demo-web, namespace: default }
spec:
  type: LoadBalancer
  selector: { app: demo-web }
  ports: [{ port: 8080 }]
EOF
west rollout status deployment/demo-web --timeout=60s
west wait service/demo-web --for=jsonpath='{.status.loadBalancer.ingress[0].ip}' --timeout=30s
balancer=$(west get service demo-web -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')
port=$(west get service demo-web -o 'jsonpath={.spec.ports[0].nodePort}')
node=$(west get nodes -o 'jsonpath={.items[1].status.addresses[?(@.type=="InternalIP")].address}')

east delete pod demo-client --ignore-not-found --wait
east run demo-client --restart=Never --image="$CLIENT_IMAGE" -- sh -c "
  echo \"NodePort of a west node, http://$node:$port/hostname:\"
  for _ in 1 2 3; do curl --silent --show-error --fail --max-time 5 http://$node:$port/hostname; done
  echo \"LoadBalancer address of west, http://$balancer:8080/hostname:\"
  for _ in 1 2 3; do curl --silent --show-error --fail --max-time 5 http://$balancer:8080/hostname; done"
east wait pod/demo-client --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s >/dev/null
east logs demo-client
