"""Whom a request is from where proxies stand before us. Pure.

A proxy appends the address that it was reached from to `X-Forwarded-For`; whoever comes first in the list wrote
what it liked. So the list is read from its end, and believed only as long as the one who said it is a configured
proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_HOPS = 16
"""Ours: entries of the header that are looked at."""


def networks(texts: Sequence[str]) -> list[Network]:
    """Addresses and networks (`10.0.0.0/8`) of proxies. Raises: ValueError naming the one that is neither."""
    return [ipaddress.ip_network(text, strict=False) for text in texts]


def client_address(peer: str, forwarded_for: str, proxies: Sequence[Network]) -> str:
    """The address that limits are for.

    Args: peer: of the TCP connection. forwarded_for: the header's values, joined by commas. proxies: believed.
    """
    address = peer
    for entry in reversed(forwarded_for.split(",")[-MAX_HOPS:]):
        if not is_proxy(address, proxies):
            break
        said = _address(entry)
        if said is None:
            break  # a proxy of ours that names no address: the last one that is known counts
        address = said
    return address


def is_proxy(address: str, proxies: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in proxies)


def _address(entry: str) -> str | None:
    text = entry.strip().removeprefix("[").partition("]")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
