"""Where a peer's wire listens, as DHT nodes, trackers and hints tell it: their word, so strictly read.

Addresses are literals: a name would make us ask a resolver for whatever a stranger likes.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Endpoint(NamedTuple):
    """host: an IP address in its canonical text form. port: TCP, 1..65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(host: str, port: int) -> Endpoint | None:
    """An endpoint from its parts; None for a name, an address with a zone, or a port that is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        if address.ipv4_mapped is not None:
            return endpoint(str(address.ipv4_mapped), port)
    return Endpoint(str(address), port) if 0 < port < 65536 else None


def parse_endpoint(text: str) -> Endpoint | None:
    """Read `1.2.3.4:5` or `[::1]:5`; None for anything else."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return endpoint(host, int(port))


def split_host_port(text: str) -> tuple[str, int] | None:
    """`host:port` of our own configuration, where host may be a name; None where it is no such thing."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_wildcard(host: str) -> bool:
    """Whether listening on `host` means all addresses of this machine."""
    try:
        return host == "" or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
