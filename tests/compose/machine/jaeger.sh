#!/usr/bin/env bash
# The real Jaeger (v2) from its own Go module, for a machine that can pull no image; prints where the binary is.
#
# The module release v1.76.0 was made together with the images of 2.13.0 and holds cmd/jaeger, which is v2.
# `go install PKG@VERSION` refuses it, because its go.mod has a replace line: hence the copy of its folder.
# The release's own go.sum checks what the build downloads. About five minutes on two cores the first time.
set -euo pipefail
readonly release=v1.76.0
readonly cache=${SWARMBRIDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmbridge}
readonly binary=$cache/jaeger-$release

if [ ! -x "$binary" ]; then
  command -v go >/dev/null || { echo "jaeger: no 'go' here, which builds it; install Go 1.26 or newer" >&2; exit 1; }
  build=$(mktemp -d)
  # What go unpacks is read-only, and so would be its copy.
  trap 'chmod -R u+w "$build"; rm -rf "$build"' EXIT
  export GOTOOLCHAIN=local GOSUMDB=off
  module=$(cd "$build" && go mod download -json "github.com/jaegertracing/jaeger@$release" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  echo "jaeger: building $release, once; the binary is kept in $cache" >&2
  cp -r "$module" "$build/jaeger"
  chmod -R u+w "$build/jaeger"
  mkdir -p "$cache"
  (cd "$build/jaeger" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$binary.new" ./cmd/jaeger) >&2
  # Renamed when whole, so that a build that was stopped leaves no half of a binary behind.
  mv "$binary.new" "$binary"
fi
echo "$binary"
