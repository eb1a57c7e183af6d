#!/usr/bin/env bash
# Links the two clusters that `make clusters` brought up, and shows a page in east whose backend is in west. It may be
# run again: every step finds what the last run left.
set -euo pipefail
cd "$(dirname "$0")/../.."
eval "$(make -s env)"

# say TEXT: what comes next, and why.
say() { printf '\n# %s\n' "$*"; }

# run COMMAND: shows a command line as one would type it, and runs it.
run() {
  printf '$ %s\n' "$1"
  timeout 300 bash -euo pipefail -c "$1"
}

say "Linkspan in both clusters: CRDs, two gateways, one controller"
run "link-cli --context cluster-east install | kubectl --context cluster-east apply -f - >/dev/null"
run "link-cli --context cluster-west install | kubectl --context cluster-west apply -f - >/dev/null"
run "link-cli --context cluster-west check --wait 3m"

say "West's link into east: access to what west exports, and whom to expect there"
run "link-cli --context cluster-west link --to cluster-east --cluster-name cluster-west --wait"

say "A service in west, exported by a label"
run "kubectl --context cluster-west apply -f tests/demo/my-api.yaml"
run "kubectl --context cluster-west rollout status deployment/my-api --timeout=3m"
run "kubectl --context cluster-west label --overwrite svc/my-api mirror.linkerd.io/exported=true"

say "East sees west's gateway, and a mirror of the service"
run "link-cli --context cluster-east check --wait 3m"
run "link-cli --context cluster-east gateways"
run "timeout 60 bash -c 'until kubectl --context cluster-east get svc my-api-cluster-west 2>/dev/null; do sleep 1; done'"

say "A page in east that asks the service in west"
run "kubectl --context cluster-east apply -f tests/demo/page.yaml"
run "kubectl --context cluster-east rollout status deployment/page --timeout=3m"
run "kubectl --context cluster-east wait svc/page --for=jsonpath='{.status.loadBalancer.ingress[0].ip}' --timeout=60s >/dev/null"
address=$(kubectl --context cluster-east get svc page -o 'jsonpath={.status.loadBalancer.ingress[0].ip}')
for _ in 1 2 3; do
  run "curl -sS --fail --max-time 10 --retry 5 --retry-all-errors http://$address/ | grep pod"
done
pod=$(curl -sS --max-time 10 "http://$address/" | sed -n 's/.* pod \([a-z0-9-]*\).*/\1/p')
if ! kubectl --context cluster-west get pod "$pod" >/dev/null; then
  echo "the page named no pod of west: link-cli --context cluster-east check says what is wrong" >&2
  exit 1
fi

cat <<END

The clusters stay up. To try next:
  eval "\$(make -s env)"                                # kubectl, link-cli and both contexts
  curl http://$address/                                 # the page
  link-cli --context cluster-east gateways -o wide
  kubectl --context cluster-west scale deployment/my-api --replicas=0     # and see the mirror's slice: not ready
  kubectl --context cluster-east get links -n linkspan
  make clean                                            # deletes the clusters
END
