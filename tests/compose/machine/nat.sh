#!/usr/bin/env bash
# nat.sh up | down: a home behind a router, in network namespaces of this machine.
#
#   host 10.77.0.1 -- 10.77.0.2 [router, masquerading] 192.168.77.1 -- 192.168.77.2 [home]
#
# The host has no route to 192.168.77.0/24: whatever reaches `home` came back through the router's own table, and a
# port that the router gave to one conversation is of no use to another (--random).
set -euo pipefail
readonly home=swb-home router=swb-router

down() {
  ip netns del "$home" 2>/dev/null || true
  ip netns del "$router" 2>/dev/null || true
  ip link del swb-up 2>/dev/null || true
}

case ${1:-} in
  up)
    down
    ip netns add "$router"
    ip netns add "$home"
    ip link add swb-up type veth peer name wan netns "$router"
    ip -n "$router" link add lan type veth peer name eth0 netns "$home"
    ip addr add 10.77.0.1/24 dev swb-up
    ip link set swb-up up
    ip -n "$router" addr add 10.77.0.2/24 dev wan
    ip -n "$router" addr add 192.168.77.1/24 dev lan
    ip -n "$home" addr add 192.168.77.2/24 dev eth0
    for end in lo wan lan; do ip -n "$router" link set "$end" up; done
    for end in lo eth0; do ip -n "$home" link set "$end" up; done
    ip -n "$home" route add default via 192.168.77.1
    ip -n "$router" route add default via 10.77.0.1
    ip netns exec "$router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    ip netns exec "$router" iptables -t nat -A POSTROUTING -o wan -j MASQUERADE --random
    # This machine would route to its containers' own addresses, which nobody outside can reach.
    ip netns exec "$router" iptables -A FORWARD -d 172.16.0.0/12 -j DROP
    # Nobody outside begins a conversation with the home.
    ip netns exec "$router" iptables -P FORWARD DROP
    ip netns exec "$router" iptables -A FORWARD -i lan -j ACCEPT
    ip netns exec "$router" iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    ;;
  down) down ;;
  *)
    echo "usage: nat.sh up | down" >&2
    exit 2
    ;;
esac
