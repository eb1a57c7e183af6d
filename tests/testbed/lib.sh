# What every script of the test bed shares: versions, places, keys of the cache, one line per step. Sourced, never run.
# shellcheck shell=bash

BED=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$BED/../.." && pwd)
export LINKSPAN_CACHE=${LINKSPAN_CACHE:-${HOME:-/root}/.cache/linkspan}
export LINKSPAN_TOOLS=$LINKSPAN_CACHE/bin
export KUBECONFIG=$LINKSPAN_CACHE/kubeconfig
export PATH=$LINKSPAN_TOOLS:$PATH

KUBERNETES_VERSION=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 }' "$BED/tools/go.mod")
DEBIAN_RELEASE=bookworm
CARGO_DENY_VERSION=0.20.2
CLIENT_IMAGE=linkspan/client:demo
APPS_IMAGE=linkspan/test-apps:demo
AGENT_IMAGE=linkspan-testbed/agent:1
TEST_IMAGES=("$CLIENT_IMAGE" "$APPS_IMAGE")
SCRATCH=$LINKSPAN_CACHE/tmp
LOGS=$LINKSPAN_CACHE/logs

die() {
  echo "$*" >&2
  exit 1
}

# install_packages PACKAGE...: from Debian; steps that run side by side wait for each other.
install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600)
  # apt-get update has a lock of its own, which knows no waiting.
  flock --timeout 600 "$LINKSPAN_CACHE/.packages.lock" "${apt[@]}" update
  "${apt[@]}" install -y --no-install-recommends "$@"
}

# key FILE...: twelve hex digits that change when a file does, or when a word in KEY_EXTRA does.
key() {
  { echo "${KEY_EXTRA:-}"; cat "$@"; } | sha256sum | cut -c1-12
}

tools_key() {
  KEY_EXTRA=$(go env GOVERSION GOARCH) key "$BED"/tools/go.{mod,sum} "$BED"/tools/cmd/*/*.go "$BED/tools.sh"
}

rootfs_key() {
  KEY_EXTRA=$DEBIAN_RELEASE key "$BED/rootfs.sh"
}

test_images_key() {
  KEY_EXTRA=$(rootfs_key) key "$BED/test-images.sh" "$BED"/apps/*
}

agent_key() {
  KEY_EXTRA=$(rootfs_key) key "$BED/agent-image.sh" "$BED"/agent/*.sh
}

node_image_key() {
  KEY_EXTRA=$(tools_key)$(rootfs_key)$(agent_key) key "$BED/node-image.sh" "$BED"/node/*
}

# workspace_version: the version that every crate, image and chart of this checkout has.
workspace_version() {
  awk -F '"' '/^\[/ { inside = $0 == "[workspace.package]" } inside && /^version *=/ { print $2 }' "$REPO/Cargo.toml"
}

# programs_folder: where cargo puts our programs, built with the profile PROFILE (dev-image unless told).
programs_folder() {
  local profile=${PROFILE:-dev-image}
  [[ $profile == dev || $profile == test ]] && profile=debug
  # .cargo/config.toml names the host as target, so cargo writes to a folder of that name.
  echo "${CARGO_TARGET_DIR:-$REPO/target}/$(rustc -vV | awk '$1 == "host:" { print $2 }')/$profile"
}

# nodes_of CLUSTER [--all]: the names of a cluster's running nodes, or of all it has.
nodes_of() {
  docker ps "${@:2}" --filter "label=io.x-k8s.kind.cluster=$1" --format '{{ .Names }}' | sort
}

# clusters_up: the names of our clusters that were made to the end and have running nodes.
clusters_up() {
  local file name
  for file in "$LINKSPAN_CACHE"/clusters/*.made-from; do
    name=$(basename "$file" .made-from)
    [[ -z $(nodes_of "$name") ]] || echo "$name"
  done
}

# prepare_cache: the folder, marked as ours so that `make distclean` dares to remove it; nobody else's is ever marked.
prepare_cache() {
  if [[ ! -f $LINKSPAN_CACHE/.linkspan-cache && -n $(ls -A "$LINKSPAN_CACHE" 2>/dev/null) ]]; then
    die "$LINKSPAN_CACHE holds something else than the test bed's cache: set LINKSPAN_CACHE to a folder that is empty or not there."
  fi
  mkdir -p "$LINKSPAN_CACHE" "$LOGS" "$SCRATCH"
  touch "$LINKSPAN_CACHE/.linkspan-cache"
}

# hold_lock: one run at a time. Steps inherit the lock, so that one left behind by a killed run is waited for, not doubled.
hold_lock() {
  prepare_cache
  exec 9>"$LINKSPAN_CACHE/.lock"
  if ! flock --nonblock 9; then
    echo "waiting for an earlier run that is still at work"
    flock --timeout 1200 9 || die "an earlier run has held $LINKSPAN_CACHE/.lock for 20 minutes: stop it (fuser $LINKSPAN_CACHE/.lock shows it), then run this again."
  fi
  # Nothing takes two hours: what is older was left by a run that was killed.
  find "$SCRATCH" -mindepth 1 -maxdepth 1 -mmin +120 -exec rm -rf --one-file-system {} +
}

# step TITLE SCRIPT...: runs it with its output in a log; one line with the elapsed time, or the log's end when it fails.
step() {
  local title=$1 log start=$SECONDS
  shift
  log=$LOGS/$(basename "$1" .sh)${2:+-$2}.log
  if "$@" >"$log" 2>&1 </dev/null; then
    printf '%-62s %4d s\n' "$title" $((SECONDS - start))
  else
    printf '%-62s failed after %d s\n' "$title" $((SECONDS - start)) >&2
    tail -n 25 "$log" >&2
    die "The whole output is in $log."
  fi
}

# copy_with_libraries ROOT OUT PATH...: copies programs of a Debian root, with the libraries they are linked to, to an empty root OUT.
copy_with_libraries() {
  local root=$1 out=$2 file
  shift 2
  {
    printf '%s\n' "$@"
    chroot "$root" ldd "$@" 2>/dev/null | awk '$1 ~ /^\// && $1 !~ /:$/ { print $1 } $2 == "=>" && $3 ~ /^\// { print $3 }'
  } | sort -u | while read -r file; do
    mkdir -p "$out$(dirname "$file")"
    cp -L "$root$file" "$out$file"
  done
}

# image_is IMAGE KEY: whether the image is there and was made with that key.
image_is() {
  [[ $(docker image inspect --format '{{ index .Config.Labels "linkspan.key" }}' "$1" 2>/dev/null) == "$2" ]]
}

# import_image IMAGE KEY ROOT CHANGE...: makes an image of one layer from a folder.
import_image() {
  local image=$1 key=$2 root=$3 change changes=()
  shift 3
  for change in "LABEL linkspan.key=$key" "$@"; do changes+=(--change "$change"); done
  tar --numeric-owner --owner=0 --group=0 -C "$root" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

# load_images "NODE..." IMAGE...: brings images of the docker daemon to nodes. What a node was given under a name is
# recorded by the node's container id, and not given again.
load_images() {
  local nodes=$1 node container image images id records record work job jobs=()
  shift
  mkdir -p "$SCRATCH"
  work=$(mktemp -d "$SCRATCH/load.XXXXXX")
  # shellcheck disable=SC2086 # a list of names
  docker inspect --format '{{ slice .Name 1 }} {{ .Id }}' $nodes >"$work/containers"
  for image in "$@"; do
    id=$(docker image inspect --format '{{ .Id }}' "$image")
    while read -r node container; do
      records=$LINKSPAN_CACHE/clusters/nodes/$container
      mkdir -p "$records"
      if [[ $(cat "$records/${image//\//_}" 2>/dev/null) != "$id" ]]; then
        echo "$image" >>"$work/missing"
        touch "$work/$node"
        echo "$records/${image//\//_} $id" >>"$work/records"
      fi
    done <"$work/containers"
  done
  if [[ -f $work/missing ]]; then
    mapfile -t images < <(sort -u "$work/missing")
    docker save -o "$work/images.tar" "${images[@]}"
    for node in $nodes; do
      [[ -f $work/$node ]] || continue
      timeout 300 docker exec -i "$node" ctr -n k8s.io images import --all-platforms --digests - <"$work/images.tar" >/dev/null &
      jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || die "a node took no images: docker ps shows whether it runs; make clean clusters makes new ones."; done
    while read -r record id; do echo "$id" >"$record"; done <"$work/records"
  fi
  rm -rf "$work"
}

# Counting tests: each check or test that ran is passed, failed or skipped, and whoever skips or fails has a name.
passed=0 failed=0 skipped=0 remarks=()

# count_check NAME COMMAND...: one check; what it prints is shown.
count_check() {
  local name=$1
  shift
  echo "== $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    remarks+=("FAILED: $name")
  fi
}

# count_skip NAME WHY: a check that could not be made.
count_skip() {
  skipped=$((skipped + 1))
  remarks+=("SKIPPED: $1: $2")
}

# count_tests NAME COMMAND...: a run of cargo test, counted by what it prints; a test that skips itself prints "SKIPPED: name: why".
count_tests() {
  local name=$1 log status=0 ok bad left_out itself line
  shift
  echo "== $name"
  log=$LOGS/$(tr -c 'a-z0-9\n' - <<<"$name").log
  "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
  read -r ok bad left_out < <(awk '/^test result: / { ok += $4; bad += $6; out += $8 } END { print ok + 0, bad + 0, out + 0 }' "$log")
  # A test that skips itself ends as passed; it is not. Its line may follow the runner's "test name ... ".
  itself=$(grep -o 'SKIPPED: [^:]*: .*' "$log" | sort -u) || true
  while IFS= read -r line; do remarks+=("$line"); done < <(
    sed -n -E 's/^test (.*) \.\.\. ignored(, (.*))?$/SKIPPED: \1: \3/p' "$log"
    why_failed "$log"
    [[ -z $itself ]] || echo "$itself"
  )
  itself=$([[ -z $itself ]] || wc -l <<<"$itself")
  if ((status != 0 && bad == 0)); then
    bad=1
    remarks+=("FAILED: $name: ended with status $status before every test had run")
  fi
  passed=$((passed + ok - ${itself:-0})) failed=$((failed + bad)) skipped=$((skipped + left_out + ${itself:-0}))
}

# why_failed LOG: each failed test of a run of cargo test with the first lines of its error, indented.
why_failed() {
  awk '
    /^test .* \.\.\. FAILED$/ { sub(/^test /, ""); sub(/ \.\.\. FAILED$/, ""); print "FAILED: " $0; next }
    /^failures:$/ { inside = 1; left = 0 }
    /^test result: / { inside = 0; left = 0 }
    inside && /^---- .* stdout ----$/ { print "FAILED: " $2; left = 0; next }
    inside && (/^Error: / || / panicked at /) { left = 8 }
    inside && left && /^[Ss]tack backtrace:/ { left = 0 }
    inside && left && NF { print "  | " substr($0, 1, 600); left-- }
  ' "$1" | awk '
    /^FAILED: / { name = $0; if (!(name in text)) { order[++n] = name; text[name] = "" } next }
    { text[name] = text[name] "\n" $0 }
    END { for (i = 1; i <= n; i++) print order[i] text[order[i]] }
  '
}

# add_counts LOG: takes over the counts and the named skips and failures of a run that ended with a summary of its own.
add_counts() {
  local ok bad left_out line
  # When something failed, make's own word follows the counts.
  read -r ok bad left_out < <(sed -n -E 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$1" | tail -n 1) || bad=1
  while IFS= read -r line; do remarks+=("$line"); done < <(sed -n '/^Summary:$/,$p' "$1" | grep -E '^(SKIPPED|FAILED): |^  \| ')
  passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-1})) skipped=$((skipped + ${left_out:-0}))
}

# summary: the names of what failed or was skipped, the counts on the last line; fails when anything failed.
summary() {
  echo "Summary:"
  ((${#remarks[@]} == 0)) || printf '%s\n' "${remarks[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}
