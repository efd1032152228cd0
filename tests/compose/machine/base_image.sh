#!/usr/bin/env bash
# base_image.sh NAME: an image under the name that the Dockerfile starts from, where none can be pulled.
#
# A Debian with Python and nothing else, from Debian's own packages, so that the Dockerfile builds unchanged.
# Where the machine has certificate authorities of its own (a proxy's), the image gets them too: without them pip
# fails at TLS inside RUN. They are of this machine only, and the image is never pushed.
set -euo pipefail
readonly name=$1
readonly suite=trixie

if docker image inspect "$name" >/dev/null 2>&1; then exit 0; fi
if timeout 120 docker pull --quiet "$name" >/dev/null 2>&1; then exit 0; fi

command -v debootstrap >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
}
echo "base image: making $name from Debian packages" >&2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" >"$root.log" 2>&1 || {
  tail -5 "$root.log" >&2
  exit 1
}
rm -f "$root.log"
# The official image calls it `python`.
ln -sf python3 "$root/usr/bin/python"
changes=()
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
  chroot "$root" update-ca-certificates >/dev/null 2>&1
  changes=(--change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt')
fi
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
tar -C "$root" -c . | docker import "${changes[@]}" - "$name" >/dev/null
