#!/usr/bin/env bash
# What speaks HTTP/2 and gRPC to the gateways in tests: h2spec, grpcurl and a gRPC server, built from pinned Go modules,
# and Debian's h2load, beside the other tools.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

prepare_cache
folder=$BED/protocol-tools
wanted=$(KEY_EXTRA=$(go env GOVERSION GOARCH) key "$folder"/go.{mod,sum} "$folder"/cmd/*/*.go "$0")
programs=(grpcurl h2spec grpc-server)
made=$LINKSPAN_TOOLS/protocol-tools-$wanted
if [[ ! -f $made ]]; then
  cd "$folder"
  timeout 1200 env CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$LINKSPAN_TOOLS/" \
    github.com/fullstorydev/grpcurl/cmd/grpcurl github.com/summerwind/h2spec/cmd/h2spec ./cmd/grpc-server
  for program in "${programs[@]}"; do [[ -x $LINKSPAN_TOOLS/$program ]]; done
  rm -f "$LINKSPAN_TOOLS"/protocol-tools-*
  touch "$made"
fi
command -v h2load >/dev/null || install_packages nghttp2-client
