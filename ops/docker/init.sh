#!/bin/sh
# Makes a node out of empty volumes, before NATS starts: identity, operator's token, bus users; then gives to each
# service its own files and no others.
#
# May run any number of times: what is there is kept. The home of `init` holds every secret of the node, so no other
# container has its volume, and this one has no network; a service that was taken over finds its own seed and nobody
# else's.
#
# BUS_TLS: names of the NATS server, for a certificate; without any it serves in clear (and inside one network).
set -eu

give() { # give FILE DIRECTORY: a copy that only its owner reads, whole at every moment
  if ! cmp -s "$1" "$2/${1##*/}"; then
    install -m 0600 "$1" "$2/.new"
    mv "$2/.new" "$2/${1##*/}"
  fi
}

python -P -m services.supervisor init --home /home/init --nats-host 0.0.0.0 --nats-port 4222 --nats-store /nats/data \
  ${BUS_TLS:+--nats-tls "$BUS_TLS" --nats-tls-files /nats/config} >/dev/null
for service in chunk manager webrtc webtorrent broadcast gateway keeper; do
  for seed in /home/init/bus/seeds/"$SWARMBRIDGE_NODE_ID"/"$service"/*.seed; do
    give "$seed" /secrets/"$service"
  done
  if [ -n "${BUS_TLS:-}" ]; then give /home/init/bus/tls/ca.pem /secrets/"$service"; fi
done
give /home/init/gateway.token /secrets/gateway
# There with ops/compose/observe.yaml; without, it is a directory of the read-only image.
if [ -w /secrets/prometheus ]; then give /home/init/gateway.token /secrets/prometheus; fi
give /home/init/root.key /home/chunk
if [ -n "${BUS_TLS:-}" ]; then
  give /home/init/bus/tls/server.key /nats/config
  give /home/init/bus/tls/server.pem /nats/config
fi
give /home/init/bus/nats.conf /nats/config
echo "node $SWARMBRIDGE_NODE_ID: keys, token and bus users are there"
