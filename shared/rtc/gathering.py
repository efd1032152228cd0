"""What aioice has no option for: where it gathers and how long, how soon it misses a peer, its sockets' buffers.

Gathering: aioice asks its module's `get_host_addresses` and leaves 127.0.0.1 out, so that nodes on a machine
without a network could never meet, and a node could not keep to one address. `install()` puts a function in its
place that answers with the addresses of the connection which is being gathered (a context variable: aioice
calls it within the task that set the local description), and as before where none are set.

Waiting: aioice gives every STUN and TURN server 5 s before a description is complete, which is longer than a dial
may take: one silent server made every offer come too late. A description now goes with what was gathered within
GATHER_S; a relay or a reflexive address that comes later is not in it, since nothing of ours trickles.

Consent (RFC 7675): aioice checks each 5 s and gives up after 6 misses, so that a killed peer was noticed after
28-33 s. Each 1 s and 3 misses: 3.8-4.5 s (FACTS 1).

Receive buffer: the kernel's default holds about 90 packets of a burst, fewer than our window sends at once. What
does not fit is lost, and where it was the end of a burst SCTP waits 1 s for its T3 timer (measured: 27,900 packets
lost in a day's tests on loopback, chunks of 1.2 s instead of 0.1 s).

Leaves out: mDNS and TCP candidates.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextvars import ContextVar

import aioice.ice

CONSENT_INTERVAL_S = 1
CONSENT_FAILURES = 3
"""Misses in a row until a peer counts as gone (FACTS 1)."""

GATHER_S = 0.3
"""Ours: for the STUN and TURN servers, all together; a server that is near answers in a tenth of it."""

RECEIVE_BUFFER_BYTES = 4 * 2**20
"""Asked for; the kernel grants at most net.core.rmem_max."""

_gather_on: ContextVar[tuple[str, ...] | None] = ContextVar("gather_on", default=None)
_machine_addresses = aioice.ice.get_host_addresses
_stock_component_candidates = aioice.ice.Connection.get_component_candidates
_stock_connection_made = aioice.ice.StunProtocol.connection_made


def install() -> None:
    """Put all of it in force for every connection of this process. Idempotent."""
    aioice.ice.CONSENT_INTERVAL = CONSENT_INTERVAL_S
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES
    aioice.ice.get_host_addresses = _host_addresses
    aioice.ice.Connection.get_component_candidates = _component_candidates  # type: ignore[method-assign]
    aioice.ice.StunProtocol.connection_made = _connection_made  # type: ignore[method-assign]


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


async def _component_candidates(
    self: aioice.ice.Connection, component: int, addresses: list[str], timeout: float = GATHER_S
) -> list[aioice.Candidate]:
    # aioice calls it without a timeout, and takes its own default of 5 s for it.
    return await _stock_component_candidates(self, component, addresses, timeout)  # type: ignore[arg-type]


def _connection_made(self: aioice.ice.StunProtocol, transport: asyncio.BaseTransport) -> None:
    _stock_connection_made(self, transport)
    # A copy of the descriptor: uvloop's own socket object leaves setsockopt out.
    with socket.fromfd(transport.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_DGRAM) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
