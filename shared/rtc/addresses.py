"""Which addresses a data channel may gather on and send to. Pure; the caller lists the machine's own.

A remote peer names the addresses that we then send connectivity checks to, so it could point us at anything. What
configuration allows (docs/limits.md): a node that gathers on loopback stays on loopback; any other sends to
unicast addresses that are not its own loopback. Names (`.local`, mDNS) are never resolved: a browser behind one
is learnt as peer-reflexive from its own checks (docs/data-channels.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class AddressRule:
    """gather_on: our own addresses, at least one. loopback: whether the remote peer's may (and must) be loopback."""

    gather_on: tuple[str, ...]
    loopback: bool

    def allows(self, host: str) -> bool:
        """Whether we send to this IP address. False for a name, and for what is no unicast address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # `::ffff:127.0.0.1` is loopback to the kernel, and to `ipaddress` it is not.
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_loopback:
            return self.loopback
        if address.is_multicast or address.is_unspecified or address.is_reserved:
            return False
        return not self.loopback


def advertised(sdp: str, address: str) -> str:
    """A description of ours with each host candidate also under `address` and the same port, behind the original.

    For a network address translation that maps our ports one to one: a container's published range, a cloud's
    public address. The originals stay: a peer on our own network reaches them directly. "" changes nothing.
    Source: RFC 8445, section 5.1.1.1; RFC 5245 calls it a server reflexive address that nobody had to ask for.
    """
    if not address:
        return sdp
    lines: list[str] = []
    family = ipaddress.ip_address(address).version
    for line in sdp.splitlines():
        lines.append(line)
        fields = line.split()
        if not line.startswith("a=candidate:") or fields[7:8] != ["host"]:
            continue
        if ipaddress.ip_address(fields[4]).version == family and fields[4] != address:
            # A foundation and a priority of its own, below the original's: candidates of one foundation are frozen
            # together, and equal priorities are none.
            fields[0] += "n"
            fields[3] = str(max(1, int(fields[3]) - 1))
            fields[4] = address
            lines.append(" ".join(fields))
    return "\r\n".join(lines) + "\r\n"


def address_rule(host: str, machine: Sequence[str]) -> AddressRule:
    """The rule for `webrtc.host`.

    Args:  host: the address to gather on; "" = all of `machine`, the addresses of this machine without loopback.
           A machine without any is alone: it gathers on loopback, so that its own nodes still meet.
    """
    gather_on = (host,) if host else tuple(machine) or (LOOPBACK,)
    return AddressRule(gather_on, all(_is_loopback(address) for address in gather_on))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
