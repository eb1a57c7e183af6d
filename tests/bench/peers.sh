#!/usr/bin/env bash
# Debian's haproxy, nginx and stunnel, which the benchmark compares with. Their services are not started. What cannot be
# had is skipped by the benchmark, by name.
set -euo pipefail

packages=()
command -v haproxy >/dev/null || packages+=(haproxy)
command -v nginx >/dev/null || packages+=(nginx)
[[ -e /usr/lib/nginx/modules/ngx_stream_module.so ]] || packages+=(libnginx-mod-stream)
command -v stunnel >/dev/null || packages+=(stunnel4)
((${#packages[@]} > 0)) || exit 0
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  echo "not installed: ${packages[*]} (this takes root on a Debian)"
  exit 0
fi
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
timeout 120 apt-get update -qq || true
timeout 300 apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null ||
  echo "could not be installed: ${packages[*]}"
