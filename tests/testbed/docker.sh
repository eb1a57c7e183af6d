#!/usr/bin/env bash
# A working Docker daemon is left alone. Where none answers, Debian's is installed and started; on a kernel that withholds
# capabilities from everybody it runs containers through a wrapper that does not ask for those.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

answers() {
  timeout 10 docker info >/dev/null 2>&1
}

answers && exit 0

command -v dockerd >/dev/null || install_packages docker.io iptables
command -v jq >/dev/null || install_packages jq

# capabilities(7), in the order of their bits.
names=(CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
  NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT
  SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
  WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE)
granted=$((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status)))
withheld=()
for ((bit = 0; bit <= $(</proc/sys/kernel/cap_last_cap); bit++)); do
  ((granted >> bit & 1)) || withheld+=("\"CAP_${names[bit]}\"")
done

options=(--log-level=warn)
if ((${#withheld[@]} > 0)); then
  list=$(IFS=,; echo "[${withheld[*]}]")
  runtime=$LINKSPAN_CACHE/runc
  cat >"$runtime.new" <<EOF
#!/bin/bash
# runc, after taking out of what it is given the capabilities that this kernel grants to nobody.
previous=
for argument in "\$@"; do
  case \$previous in
    --bundle|-b) spec=\$argument/config.json filter='.process.capabilities' ;;
    --process|-p) spec=\$argument filter='.capabilities' ;;
  esac
  case \$argument in
    --bundle=*) spec=\${argument#*=}/config.json filter='.process.capabilities' ;;
    --process=*) spec=\${argument#*=} filter='.capabilities' ;;
  esac
  previous=\$argument
done
if [[ -n \${spec:-} && -f \$spec ]]; then
  jq --argjson withheld '$list' "if \$filter then \$filter |= map_values(. - \\\$withheld) else . end" "\$spec" >"\$spec.new" &&
    cat "\$spec.new" >"\$spec" && rm "\$spec.new"
fi
exec runc "\$@"
EOF
  chmod +x "$runtime.new"
  mv "$runtime.new" "$runtime"
  options+=(--add-runtime "linkspan=$runtime" --default-runtime linkspan)
fi

# A process id file of a daemon that is gone would keep a new one from starting.
pid_file=/var/run/docker.pid
if [[ -s $pid_file ]] && [[ $(cat "/proc/$(<$pid_file)/comm" 2>/dev/null) != dockerd ]]; then rm -f "$pid_file"; fi

setsid dockerd "${options[@]}" >"$LOGS/dockerd.log" 2>&1 </dev/null 9>&- &
echo $! >"$LINKSPAN_CACHE/dockerd.pid"
for _ in {1..60}; do
  answers && exit 0
  sleep 1
done
tail -n 20 "$LOGS/dockerd.log"
echo "the Docker daemon did not answer within 60 s: see $LOGS/dockerd.log."
exit 1
