#!/usr/bin/env bash
# The product's images, and the load client of the tests: each one static program on an empty root, tagged with the
# workspace's version, and brought to the clusters that are up. PROFILE names the cargo profile that built the programs
# (dev-image unless told). PROGRAMS is the folder that holds them, IMAGE_TAG the images' tag, where they are others.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

prepare_cache
profile=${PROFILE:-dev-image}
folder=${PROGRAMS:-$(programs_folder)}
version=$(workspace_version)
tag=${IMAGE_TAG:-$version}
programs=(linkspan-gateway linkspan-mirror-controller link-cli)
[[ -n ${PROGRAMS:-} ]] || programs+=(test-load)
# Which commit they were built of; a program that is the same keeps the image that it had.
revision=$(git -C "$REPO" rev-parse HEAD 2>/dev/null || echo unknown)
built=$version
if [[ $(git -C "$REPO" describe --tags --exact-match 2>/dev/null) != "v$version" ]]; then
  built+=+$(git -C "$REPO" describe --always --dirty=.dirty --exclude '*' 2>/dev/null || echo unknown)
fi
names=()
work=$(mktemp -d "$SCRATCH/product.XXXXXX")
for program in "${programs[@]}"; do
  binary=$folder/$program
  [[ -x $binary ]] || die "there is no $binary: cargo build --profile $profile --bins makes it."
  [[ $(ldd "$binary" 2>/dev/null) != *'=>'* ]] || die "$binary wants shared libraries, and its image has none: it must be linked statically (.cargo/config.toml)."
  image=linkspan/${program#linkspan-}:$tag
  names+=("$image")
  key=$(KEY_EXTRA=$version key "$BED/images.sh" "$binary")
  image_is "$image" "$key" && continue
  rm -rf "$work/root"
  mkdir "$work/root"
  install -m 755 "$binary" "$work/root/"
  import_image "$image" "$key" "$work/root" "ENTRYPOINT [\"/$program\"]" 'USER 65532:65532' 'ENV PATH=/' \
    "LABEL org.opencontainers.image.title=$program" "LABEL org.opencontainers.image.version=$built" \
    "LABEL org.opencontainers.image.revision=$revision" 'LABEL org.opencontainers.image.licenses=Apache-2.0'
done
rm -rf "$work"

mapfile -t clusters < <(clusters_up)
nodes=$(for cluster in "${clusters[@]}"; do nodes_of "$cluster"; done | xargs)
[[ -z $nodes ]] || load_images "$nodes" "${names[@]}"
echo "${names[*]}: loaded in ${clusters[*]:-no cluster, for none is up}"
