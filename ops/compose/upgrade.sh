#!/usr/bin/env bash
# Replace a node's containers by those of this checkout, one service after another; transfers go on meanwhile.
#
#   git pull && make upgrade        COMPOSE="docker compose -f compose.yaml -f …" for overlays
#
# First what the bus allows (`init`, and NATS, which reads it when it starts), then its streams, then who uses them. How many
# of a service there are is said by SWARMBRIDGE_…_SCALE in `.env`; a `--scale` of an earlier command is forgotten here.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra compose <<<"${COMPOSE:-docker compose}"

up() { "${compose[@]}" up --detach --no-deps "$@"; }
finish() { # finish ONE-SHOT: run it to its end
  local container
  up "$1"
  container=$("${compose[@]}" ps --all --quiet "$1")
  [ "$(docker wait "$container")" = 0 ] || { "${compose[@]}" logs --tail 20 "$1" >&2; exit 1; }
}

"${compose[@]}" build --quiet
finish init
up --force-recreate nats
finish streams
for service in keeper rendezvous jaeger manager chunk webrtc webtorrent broadcast gateway; do
  up --wait --wait-timeout 180 "$service"
done
