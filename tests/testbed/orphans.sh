#!/usr/bin/env bash
# Names every Rust source file that no crate compiles: one that is neither a target nor reached from one by "mod".
set -euo pipefail
source "$(dirname "$0")/lib.sh"

cd "$REPO"
declare -A reached=() is_root=()
queue=()
reach() {
  if [[ -f $1 && -z ${reached[$1]:-} ]]; then
    reached[$1]=1
    queue+=("$1")
  fi
}

while read -r file; do
  is_root[$file]=1
  reach "$file"
done < <(for manifest in Cargo.toml tests/fuzz/Cargo.toml; do
  cargo metadata --no-deps --offline --format-version 1 --manifest-path "$manifest"
done | grep -o '"src_path":"[^"]*"' | cut -d '"' -f 4 | sed "s|^$REPO/||")

while ((${#queue[@]} > 0)); do
  file=${queue[0]}
  queue=("${queue[@]:1}")
  folder=$(dirname "$file")
  children=${file%.rs}
  if [[ -n ${is_root[$file]:-} || ${file##*/} == mod.rs ]]; then children=$folder; fi
  # A module written out in the file has a folder for those it declares.
  mapfile -t inline < <(sed -n -E 's/^ *(pub(\([^)]*\))? +)?mod +([a-z0-9_]+) *\{$/\3/p' "$file")
  while read -r kind name; do
    case $kind in
      mod)
        for inside in "" "${inline[@]/%//}"; do
          reach "$children/$inside$name.rs"
          reach "$children/$inside$name/mod.rs"
        done
        ;;
      path) reach "$folder/$name" ;;
    esac
  done < <(sed -n -E 's/^ *(pub(\([^)]*\))? +)?mod +([a-z0-9_]+);.*/mod \3/p; s/.*#\[path *= *"([^"]*)"\].*/path \1/p; s/.*include!\("([^"]*\.rs)"\).*/path \1/p' "$file")
done

orphans=0
while read -r file; do
  if [[ -z ${reached[$file]:-} ]]; then
    echo "$file belongs to no crate: no target names it and no mod reaches it"
    orphans=$((orphans + 1))
  fi
done < <(git ls-files --cached --others --exclude-standard '*.rs')
((orphans == 0))
