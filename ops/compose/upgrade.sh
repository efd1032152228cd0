#!/usr/bin/env bash
# Replace a node's containers by those of this checkout, one service after another; transfers go on meanwhile.
#
#   git pull && make upgrade        COMPOSE="docker compose -f compose.yaml -f …" for overlays
#
# First what the bus allows (`init`, and NATS, which reads it when it starts), then its streams, then who uses them. How many
# of a service there are is said by SWARMBRIDGE_…_SCALE in `.env`; a `--scale` of an earlier command is forgotten here.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly wait_s=180
read -ra compose <<<"${COMPOSE:-docker compose}"

up() { "${compose[@]}" up --detach --no-deps "$@"; }
finish() { # finish ONE-SHOT: run it to its end
  local container
  up "$1"
  container=$("${compose[@]}" ps --all --quiet "$1")
  [ "$(docker wait "$container")" = 0 ] || { "${compose[@]}" logs --tail 20 "$1" >&2; exit 1; }
}

healthy() {
  local container
  for container in $("${compose[@]}" ps --quiet "$1"); do
    [ "$(docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{end}}' "$container")" = healthy ] || return 1
  done
}
replace() { # replace SERVICE; `up --wait` would give up at the first check that a busy machine answers late
  up "$1"
  for _ in $(seq "$wait_s"); do
    healthy "$1" && return
    sleep 1
  done
  echo "upgrade: $1 is not healthy after $wait_s s; see: ${compose[*]} logs $1" >&2
  exit 1
}

"${compose[@]}" build --quiet
finish init
up --force-recreate nats
finish streams
for service in keeper rendezvous jaeger manager chunk webrtc webtorrent broadcast gateway; do
  replace "$service"
done
