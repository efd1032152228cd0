"""The DHT nodes of the rendezvous document, each asked by itself: a state, a reason and a back-off of its own.

libtorrent takes bootstrap nodes and says nothing of any of them: a name that does not resolve, a node that is gone and
one that answers look the same. So each gets a KRPC `ping` of ours from a socket of ours, marked read-only (BEP 43),
which nobody takes for a node. Those that answer are what libtorrent is given.

Source: BEP 5 (`ping`), BEP 43.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.webtorrent.endpoints import Endpoint, endpoint, split_host_port
from shared.backoff import delays_s
from shared.clock import Clock
from shared.errors import Cause, RemoteProtocolError
from shared.tasks.owned import Tasks
from shared.websocket.client import ClientState
from shared.wire.peerwire.bencode import decode_bencode, encode_bencode

ASK_TIMEOUT_S = 2.0
"""For one ping, its name included; a node on the other side of the world answers in a fifth of it."""
ASK_AGAIN_S = 60.0
"""One that answers: whether it still does."""
RETRY_FIRST_S, RETRY_CAP_S = 1.0, 300.0
MAX_DATAGRAM_BYTES = 1_500
NODE_ID_BYTES = 20
TRANSACTION_BYTES = 4


def encode_ping(transaction: bytes, node_id: bytes) -> bytes:
    """A `ping` query. transaction: 4 bytes that the answer repeats. node_id: 20 bytes. Source: BEP 5, BEP 43."""
    return encode_bencode({b"a": {b"id": node_id}, b"q": b"ping", b"ro": 1, b"t": transaction, b"y": b"q"})


def answered_transaction(datagram: bytes) -> bytes | None:
    """The transaction that a datagram answers; None for anything that is no answer. Never raises."""
    try:
        message = decode_bencode(datagram, max_bytes=MAX_DATAGRAM_BYTES)
    except RemoteProtocolError:
        return None
    if not isinstance(message, dict) or message.get(b"y") != b"r":
        return None
    transaction = message.get(b"t")
    return transaction if isinstance(transaction, bytes) and len(transaction) == TRANSACTION_BYTES else None


@dataclass(slots=True)
class NodeState:
    """One node of the document. Times are on the clock of the worker; retry_at: 0 = it answers, ask_at: the next ping.

    address: where it answered last.
    """

    since: float
    delays: Iterator[float]
    state: ClientState = ClientState.CONNECTING
    cause: Cause | None = None
    retry_at: float = 0.0
    ask_at: float = 0.0
    address: Endpoint | None = None


class Bootstrap:
    """Asks each node by itself. host: our UDP address. answered: a node that answers, each time.

    Cancellation: `run` closes its socket before it ends.
    """

    def __init__(
        self,
        host: str,
        nodes: list[str],
        answered: Callable[[Endpoint], None],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._host = host
        self._answered, self._changed, self._clock = answered, changed, clock
        self._states: dict[str, NodeState] = {}
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._node_id = os.urandom(NODE_ID_BYTES)
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._transport: asyncio.DatagramTransport | None = None
        self.set_nodes(nodes)

    def set_nodes(self, nodes: list[str]) -> None:
        """Other nodes, from a rendezvous document that changed; those that stay keep their state."""
        now = self._clock()
        self._states = {
            text: self._states.get(text) or NodeState(now, delays_s(RETRY_FIRST_S, RETRY_CAP_S)) for text in nodes
        }
        self._wake.set()

    def state(self, text: str) -> NodeState | None:
        return self._states.get(text)

    @property
    def addresses(self) -> list[Endpoint]:
        """Nodes that answered when they were last asked."""
        states = self._states.values()
        return [each.address for each in states if each.address is not None and each.state is ClientState.OPEN]

    async def run(self) -> None:
        """Ask whoever is due, until cancelled."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._receive),
            local_addr=(self._host or "0.0.0.0", 0),  # noqa: S104
        )
        try:
            while True:
                self._wake.clear()
                now = self._clock()
                for text, state in self._states.items():
                    if state.ask_at <= now:
                        state.ask_at = now + ASK_TIMEOUT_S + ASK_AGAIN_S  # until its answer says otherwise
                        self._tasks.start(self._ask(text, state), name="dht-ping")
                soonest = min((state.ask_at for state in self._states.values()), default=now + ASK_AGAIN_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.01, soonest - now)):
                        await self._wake.wait()
        finally:
            await self._tasks.close()
            self._transport.close()

    async def _ask(self, text: str, state: NodeState) -> None:
        address, cause = None, None
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                # Each time, and within the same two seconds: a name may lead elsewhere by now.
                address = await _resolved(text)
                await self._ping(address)
        except TimeoutError:
            cause = Cause.SILENT
        except OSError:  # no such name, no way there from our address
            cause = Cause.SIGNALLING_UNAVAILABLE
        now = self._clock()
        was = (state.state, state.cause)
        state.state = ClientState.OPEN if cause is None else ClientState.WAITING
        state.cause, state.address = cause, address
        if cause is None:
            state.delays = delays_s(RETRY_FIRST_S, RETRY_CAP_S)
            state.retry_at, state.ask_at = 0.0, now + ASK_AGAIN_S
        else:
            state.retry_at = state.ask_at = now + next(state.delays)
        if (state.state, state.cause) != was:
            state.since = now
            self._changed()
        if cause is None and address is not None:
            self._answered(address)
        self._wake.set()

    async def _ping(self, address: Endpoint) -> None:
        """Raises: OSError: it cannot be sent. Waits until an answer comes."""
        assert self._transport is not None
        transaction = os.urandom(TRANSACTION_BYTES)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = answer
        try:
            self._transport.sendto(encode_ping(transaction, self._node_id), (address.host, address.port))
            await answer
        finally:
            del self._waiting[transaction]

    def _receive(self, datagram: bytes) -> None:
        # A transaction that only the asked one has seen: who answers is who was asked, or sits on the way.
        answer = self._waiting.get(answered_transaction(datagram) or b"")
        if answer is not None and not answer.done():
            answer.set_result(None)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data)

    def error_received(self, exc: Exception) -> None:
        """A port that is closed: whoever waits for an answer from there waits its time out."""


async def _resolved(text: str) -> Endpoint:
    """Where a node of our own configuration is. Raises: OSError: its name does not resolve."""
    parts = split_host_port(text)
    if parts is None:
        raise OSError("not a host and a port")
    literal = endpoint(*parts)
    if literal is not None:
        return literal
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*parts, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except UnicodeError:  # how Python refuses a name like `a..b`
        raise OSError("no name") from None
    resolved = endpoint(str(found[0][4][0]), parts[1])
    if resolved is None:
        raise OSError("no address")
    return resolved
