#!/usr/bin/env bash
# Debian's Prometheus with promtool, beside the other tools; nothing is installed or started on the machine.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

[[ -x $LINKSPAN_TOOLS/prometheus && -x $LINKSPAN_TOOLS/promtool ]] && exit 0
prepare_cache
command -v apt-get >/dev/null || die "Prometheus: neither in $LINKSPAN_TOOLS nor to be had, as this is not a Debian: put prometheus and promtool there."
work=$(mktemp -d "$SCRATCH/prometheus.XXXXXX")
cd "$work"
download() {
  timeout 300 apt-get -o APT::Sandbox::User=root download prometheus
}
download || { flock --timeout 600 "$LINKSPAN_CACHE/.packages.lock" timeout 300 apt-get update && download; }
dpkg-deb --extract prometheus_*.deb root
install -m 755 root/usr/bin/{prometheus,promtool} "$LINKSPAN_TOOLS/"
rm -rf "$work"
