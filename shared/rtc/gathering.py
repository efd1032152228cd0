"""Two things that aioice has no option for: the addresses it gathers on, and how soon it notices a dead peer.

Gathering: aioice asks its module's `get_host_addresses` and leaves 127.0.0.1 out, so that nodes on a machine
without a network could never meet, and a node could not keep to one address. `install()` puts a function in its
place that answers with the addresses of the connection which is being gathered (a context variable: aioice
calls it within the task that set the local description), and as before where none are set.

Consent (RFC 7675): aioice checks each 5 s and gives up after 6 misses, so that a killed peer was noticed after
28-33 s. Each 1 s and 3 misses: 3.8-4.5 s (FACTS 1).

Leaves out: mDNS and TCP candidates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import aioice.ice

CONSENT_INTERVAL_S = 1
CONSENT_FAILURES = 3
"""Misses in a row until a peer counts as gone (FACTS 1)."""

_gather_on: ContextVar[tuple[str, ...] | None] = ContextVar("gather_on", default=None)
_machine_addresses = aioice.ice.get_host_addresses


def install() -> None:
    """Put both in force for every connection of this process. Idempotent."""
    aioice.ice.CONSENT_INTERVAL = CONSENT_INTERVAL_S
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES
    aioice.ice.get_host_addresses = _host_addresses


def machine_addresses() -> list[str]:
    """All addresses of this machine without loopback, IPv4 and IPv6."""
    return _machine_addresses(use_ipv4=True, use_ipv6=True)


@contextlib.contextmanager
def gathering_on(addresses: tuple[str, ...]) -> Iterator[None]:
    """Candidates gathered by tasks started within are on these addresses only."""
    token = _gather_on.set(addresses)
    try:
        yield
    finally:
        _gather_on.reset(token)


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    chosen = _gather_on.get()
    if chosen is None:
        return _machine_addresses(use_ipv4=use_ipv4, use_ipv6=use_ipv6)
    return [address for address in chosen if (use_ipv6 if ":" in address else use_ipv4)]
