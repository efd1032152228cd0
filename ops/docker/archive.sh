#!/bin/sh
# archive.sh save > FILE | load < FILE: everything of a node that cannot be made again, as one tar.
#
# Identity and every other secret (init), chunks (chunk), the index, flags and attempts (nats), uploads (gateway). Whoever
# has the file is the node. Nothing else may be running: a store that is written to meanwhile is no backup.
set -eu

case ${1:-} in
  save) exec tar --create --directory=/backup init chunk nats gateway ;;
  load)
    if [ -e /backup/init/root.key ]; then
      echo "restore: this project is a node already; remove its volumes first: docker compose down --volumes" >&2
      exit 1
    fi
    exec tar --extract --directory=/backup --no-same-owner
    ;;
  *)
    echo "usage: archive.sh save | load" >&2
    exit 2
    ;;
esac
