"""What aioice has no option for: where it gathers and how long, its sockets' buffers.

Gathering: aioice asks its module's `get_host_addresses` and leaves 127.0.0.1 out, so that nodes on a machine
without a network could never meet, and a node could not keep to one address. `install()` puts a function in its
place that answers with the addresses of the connection which is being gathered (a context variable: aioice
calls it within the task that set the local description), and as before where none are set.

Waiting: aioice gives every STUN and TURN server 5 s before a description is complete, which is longer than a dial
may take: one silent server made every offer come too late. A description now goes with what was gathered within
GATHER_S; a relay or a reflexive address that comes later is not in it, since nothing of ours trickles.

Receive buffer: the kernel's default holds about 90 packets of a burst, fewer than our window sends at once. What
does not fit is lost, and where it was the end of a burst SCTP waits 1 s for its T3 timer (measured: 27,900 packets
lost in a day's tests on loopback, chunks of 1.2 s instead of 0.1 s).

Ports: aioice binds port 0, any free one, which no firewall and no published range of a container can allow for. With a
range in force (a context variable as well) it binds one of these, whichever is free.

Leaves out: mDNS and TCP candidates.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import aioice.ice

GATHER_S = 0.3
"""Ours: for the STUN and TURN servers, all together; a server that is near answers in a tenth of it."""

RECEIVE_BUFFER_BYTES = 4 * 2**20
"""Asked for; the kernel grants at most net.core.rmem_max."""

OUTSIDE = ("192.0.2.1", 9)
"""TEST-NET-1 (RFC 5737): routed like any address of the outside, and nobody's. Nothing is ever sent to it."""

_ports: ContextVar[range | None] = ContextVar("ports", default=None)
_gather_on: ContextVar[tuple[str, ...] | None] = ContextVar("gather_on", default=None)
_machine_addresses = aioice.ice.get_host_addresses
_stock_component_candidates = aioice.ice.Connection.get_component_candidates
_stock_connection_made = aioice.ice.StunProtocol.connection_made


def install() -> None:
    """Put all of it in force for every connection of this process. Idempotent."""
    aioice.ice.get_host_addresses = _host_addresses
    aioice.ice.Connection.get_component_candidates = _component_candidates  # type: ignore[method-assign]
    aioice.ice.StunProtocol.connection_made = _connection_made  # type: ignore[method-assign]
    setattr(aioice.ice, "asyncio", _AsyncioWithPorts())  # noqa: B010 - a module's own import, for mypy


def machine_addresses() -> list[str]:
    """All addresses of this machine without loopback, IPv4 and IPv6."""
    return _machine_addresses(use_ipv4=True, use_ipv6=True)


def default_route_address() -> str | None:
    """The address of ours from which packets to the outside leave; None where there is no way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(OUTSIDE)  # UDP: chooses a route, sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address


@contextlib.contextmanager
def gathering_on(addresses: tuple[str, ...], ports: range | None = None) -> Iterator[None]:
    """Candidates gathered by tasks started within are on these addresses and ports only."""
    token, ports_token = _gather_on.set(addresses), _ports.set(ports)
    try:
        yield
    finally:
        _gather_on.reset(token)
        _ports.reset(ports_token)


class _AsyncioWithPorts:
    """What `aioice.ice` imports as asyncio: asyncio, but for the loop with which it makes its sockets."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def get_running_loop(self) -> Any:
        loop = asyncio.get_running_loop()
        ports = _ports.get()
        return loop if ports is None else _LoopWithPorts(loop, ports)


class _LoopWithPorts:
    """An event loop that takes "any port" to mean one of `ports`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ports: range) -> None:
        self._loop = loop
        self._ports = ports

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_datagram_endpoint(self, factory: Any, local_addr: tuple[str, int], **options: Any) -> Any:
        """Raises: OSError(EADDRINUSE): every port of the range is taken; aioice then goes without that candidate."""
        if local_addr[1]:
            return await self._loop.create_datagram_endpoint(factory, local_addr, **options)
        # From a random one on, so that workers that share a range do not all try the same ports first.
        start = random.randrange(len(self._ports))
        for number in range(len(self._ports)):
            port = self._ports[(start + number) % len(self._ports)]
            try:
                return await self._loop.create_datagram_endpoint(factory, (local_addr[0], port), **options)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        raise OSError(errno.EADDRINUSE, "no port of the range is free")


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
    sock = transport.get_extra_info("socket")
    if sock is None:
        return  # a relayed candidate: its transport is TURN's, which has no socket to call its own
    # A copy of the descriptor: uvloop's own socket object leaves setsockopt out.
    with socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_DGRAM) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
