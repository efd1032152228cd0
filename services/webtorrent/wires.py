"""All wires of one worker: listening, dialling, who is let in, and the contract's link events.

A wire becomes a link when its peer's extended handshake has named `swarm-space`; until then it is half open and
nobody above hears of it. What ends before is reported to the swarm, which decides when to try again, and to the memory
of strangers. A peer that seals is a node; any other is a guest, called by its wire peer id, which it chose itself:
it has one link at a time, so that nobody who takes that id shares its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from services.webtorrent.connection import RECEIVE_BYTES, WireConnection, WireStream
from services.webtorrent.endpoints import Endpoint, endpoint, is_wildcard
from services.webtorrent.limits import REFUSED_DUPLICATE, Admission, Seat
from services.webtorrent.strangers import Strangers
from services.webtorrent.swarm import DialWanted, Swarm
from shared.clock import Clock
from shared.errors import Cause, TransportError
from shared.ids import LinkId, new_link_id
from shared.speech.contract import SEALED_NATIVE
from shared.speech.swarm_space import SWARM_SPACE, SWARM_SPACE_CLEAR
from shared.transport.contract import Emit, LinkDown, LinkUp, RecordReceived
from shared.wire.peerwire import Closed, Event, ExtendedHandshakeDone, FrameReceived, HandshakeDone, PeerWire
from shared.wire.sealed.binding import webtorrent_binding

MAX_RECORD_BYTES = 65_535
"""One Noise message (docs/seal.md) is one `swarm-space` frame."""
GUEST_PREFIX = "bt-"
"""What a guest is called: this and its peer id in hexadecimal digits, which no PeerJS id looks like by accident."""
CONNECT_TIMEOUT_S = 5.0
BACKLOG = 128
LINK_FAULTS = frozenset({Cause.INVALID, Cause.TOO_LARGE, Cause.RATE_LIMITED, Cause.SILENT})
"""What ends a link by a rule or a limit of the wire (docs/limits.md#peer-wire), and is counted as any refusal is."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Wire:
    """What we know of a connection.

    dialled: by us, and where. peer_id: after its handshake. counted: its direction is taken by it. endpoint: where
    its peer listens. link: once it is one. refused_as: the name to count its end under, "" for none. guest: what it
    is called where it does not seal. closed_above: whoever uses the link has closed it, and counts why.
    """

    connection: WireStream
    seat: Seat
    dialled: DialWanted | None
    peer_id: bytes = b""
    counted: bool = False
    endpoint: Endpoint | None = None
    link: LinkId | None = None
    refused_as: str | None = None
    guest: str = ""
    closed_above: bool = False


class Wires:
    """See the module. infohash, peer_id: 20 bytes. refused: counts what is turned away, shared with the worker.

    Cancellation: `dial` cancelled closes its socket; `close` ends every wire (a LinkDown a link) and the listener.
    """

    def __init__(
        self, infohash: bytes, peer_id: bytes, swarm: Swarm, emit: Emit, refused: Counter[str], clock: Clock
    ) -> None:
        self.port = 0
        self.on_change: Callable[[], None] = lambda: None
        self._infohash = infohash
        self._peer_id = peer_id
        self._swarm = swarm
        self._emit = emit
        self._refused = refused
        self._clock = clock
        self._host = ""
        self._bytes_in = self._bytes_out = 0
        self._server: asyncio.Server | None = None
        self._admission = Admission()
        self._strangers = Strangers()
        self._wires: dict[WireStream, _Wire] = {}
        self._links: dict[LinkId, _Wire] = {}
        self._directions: set[tuple[bytes, bool, str]] = set()
        """Who is here, which way, and from where: a peer id is public, and may not keep its owner out."""
        self._guests: set[str] = set()
        self._peers: Counter[bytes] = Counter()
        self._awaited: dict[bytes, set[asyncio.Future[None]]] = {}
        self._leaving: set[WireStream] = set()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))

    @property
    def link_count(self) -> int:
        return len(self._links)

    def counts(self) -> dict[str, float]:
        """Links by kind, and bytes of all wires since the start, handshakes and keep-alives included."""
        links = self._links.values()
        return {
            "wires_tcp": sum(not wire.connection.encrypted for wire in links),
            "wires_channel": sum(wire.connection.encrypted for wire in links),
            "wires_guest": sum(bool(wire.guest) for wire in links),
            "wire_bytes_in": self._bytes_in + sum(stream.bytes_in for stream in self._wires),
            "wire_bytes_out": self._bytes_out + sum(stream.bytes_out for stream in self._wires),
        }

    @property
    def listening_at(self) -> Endpoint | None:
        """Where others reach the listener on this machine; None while there is none."""
        return endpoint(self._host or "0.0.0.0", self.port)  # noqa: S104

    @property
    def dial_room(self) -> int:
        """How many wires more may be half open."""
        return self._admission.half_open_room

    async def listen(self, host: str, port: int) -> None:
        """Open the listener; `port` is then what it got.

        Raises: TransportError(REFUSED): the address is not ours, or taken.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: self._connection(None), host or None, port, backlog=BACKLOG)
        except OSError as error:
            log.error("the peer wire cannot listen where webtorrent.host and webtorrent.port say")
            raise TransportError(Cause.REFUSED, "the peer wire's address is taken or not ours") from error
        self._host = host
        self.port = self._server.sockets[0].getsockname()[1]

    async def dial(self, wanted: DialWanted) -> None:
        """Connect; the handshakes go on by themselves. Its outcome is the swarm's to hear, never an error here."""
        host = wanted.endpoint.host
        refusal = self._admission.refusal(host)
        if refusal is not None:
            self._refused[refusal] += 1
            self._swarm.dial_failed(wanted.endpoint, Cause.BUSY, self._clock())
            return
        seat = self._admission.take(host)
        # Our own address as the source: a peer puts it together with the port that our handshake names.
        source = None if is_wildcard(self._host) else (self._host, 0)
        made: list[WireConnection] = []

        def factory() -> WireConnection:
            made.append(self._connection(wanted, seat))
            return made[0]

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    factory, host, wanted.endpoint.port, local_addr=source
                )
        except TimeoutError:
            await self._dial_ended(wanted, seat, made, Cause.DIAL_TIMEOUT)
        except OSError:
            # A closed port is a peer that is away, not one that is useless to us: no REFUSED here.
            await self._dial_ended(wanted, seat, made, Cause.CLOSED)
        except asyncio.CancelledError:
            await self._dial_ended(wanted, seat, made, Cause.CLOSED)
            raise

    async def send(self, link: LinkId, record: bytes) -> None:
        """As the contract's `send`."""
        if len(record) > MAX_RECORD_BYTES:
            raise TransportError(Cause.TOO_LARGE)
        wire = self._links.get(link)
        if wire is None:
            raise TransportError(Cause.CLOSED)
        await wire.connection.send(record)

    def close_link(self, link: LinkId, cause: Cause) -> None:
        wire = self._links.get(link)
        if wire is not None:
            wire.closed_above = True
            wire.connection.close(cause)

    async def close(self) -> None:
        """Close everything; when it returns every LinkDown is emitted and every socket closed."""
        if self._server is not None:
            self._server.close()
        for connection in [*self._wires, *self._leaving]:
            await connection.abort(Cause.CLOSED)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
            self.port = 0

    # ── data channels ───────────────────────────────────────────────────────────────────────────────────

    def channel_wire(self) -> PeerWire:
        """A machine for a channel that has opened: both its ends say their handshake at once."""
        return PeerWire(True, self._infohash, self._peer_id, self._clock(), unwanted=self._is_useless)

    def has_peer(self, peer_id: bytes) -> bool:
        """Whether there is a link with a peer of this id."""
        return peer_id in self._peers

    def is_stranger(self, peer_id: bytes) -> bool:
        """Whether a peer with this id had no `swarm-space` a moment ago."""
        return self._is_useless(peer_id)

    async def peer_comes(self, peer_id: bytes, timeout_s: float) -> bool:
        """Wait for a link with a peer of this id. Returns: whether there is one."""
        if self.has_peer(peer_id):
            return True
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(peer_id, set()).add(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            return False
        finally:
            others = self._awaited[peer_id]
            others.discard(waiting)
            if not others:
                del self._awaited[peer_id]
        return True

    # ── what connections say ────────────────────────────────────────────────────────────────────────────

    def connected(self, connection: WireStream) -> bool:
        if connection in self._wires:
            return True
        refusal = self._admission.refusal(connection.address)
        if refusal is not None:
            self._refused[refusal] += 1
            return False
        self._wires[connection] = _Wire(connection, self._admission.take(connection.address), None)
        return True

    def wire_event(self, connection: WireStream, event: Event) -> None:
        wire = self._wires[connection]
        match event:
            case FrameReceived():
                assert wire.link is not None, "the machine opens before it hands on frames"
                self._emit(RecordReceived(wire.link, event.frame))
            case HandshakeDone():
                self._handshake_done(wire, event)
            case ExtendedHandshakeDone():
                if event.has_swarm_space:  # without it the wire is about to close with `no_extension`
                    self._link_up(wire, event)
            case Closed():
                pass  # the connection closes its stream, and says so by `lost`
            case _:
                assert_never(event)

    def lost(self, connection: WireStream, cause: Cause) -> None:
        wire = self._wires.pop(connection)
        self._bytes_in += connection.bytes_in
        self._bytes_out += connection.bytes_out
        wire.seat.leave()
        self._leaving = {each for each in self._leaving if not each.gone} | {connection}
        now = self._clock()
        if wire.counted:
            self._directions.discard((wire.peer_id, connection.offered, connection.address))
        if cause is Cause.NO_EXTENSION and wire.peer_id:
            self._strangers.useless(wire.peer_id, self._redials_from(wire), now)
        if wire.link is None:
            if cause is not Cause.CLOSED and wire.refused_as is None:
                wire.refused_as = cause.value
            if wire.refused_as:
                self._refused[wire.refused_as] += 1
            if wire.dialled is not None:
                self._swarm.dial_failed(wire.dialled.endpoint, cause, now)
        else:
            del self._links[wire.link]
            if cause in LINK_FAULTS and not wire.closed_above:
                self._refused[cause.value] += 1
            self._guests.discard(wire.guest)
            self._peers -= Counter((wire.peer_id,))
            if wire.endpoint is not None:
                self._swarm.unlinked(wire.endpoint, cause, now, wire.dialled is not None)
            self._emit(LinkDown(wire.link, cause))
        self.on_change()

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    async def _dial_ended(self, wanted: DialWanted, seat: Seat, made: list[WireConnection], cause: Cause) -> None:
        for connection in made:
            await connection.abort(cause)
        seat.leave()
        self._swarm.dial_failed(wanted.endpoint, cause, self._clock())
        self.on_change()

    def _connection(self, wanted: DialWanted | None, seat: Seat | None = None) -> WireConnection:
        wire = PeerWire(
            wanted is not None,
            self._infohash,
            self._peer_id,
            self._clock(),
            listen_port=self.port,
            unwanted=lambda peer_id: wanted is None and self._unwanted(connection, peer_id),
            answers_encrypted=lambda: self._strangers.answers_encrypted(connection.address, self._clock()),
        )
        connection = WireConnection(wire, self, self._buffer, self._clock, offered=wanted is not None)
        if wanted is not None and seat is not None:
            self._wires[connection] = _Wire(connection, seat, wanted)
        return connection

    def _handshake_done(self, wire: _Wire, event: HandshakeDone) -> None:
        wire.peer_id = event.peer_id
        if event.peer_id == self._peer_id:
            # The machine closes it; both ends of it are here, and only the dialling one knows where that is.
            if wire.dialled is not None:
                self._swarm.mark_own(wire.dialled.endpoint, self._clock())
            wire.refused_as = ""
            return
        direction = (event.peer_id, wire.connection.offered, wire.connection.address)
        if direction in self._directions:
            self._refuse_twin(wire)
            return
        self._directions.add(direction)
        wire.counted = True

    def _link_up(self, wire: _Wire, event: ExtendedHandshakeDone) -> None:
        guest = "" if event.seals else GUEST_PREFIX + wire.peer_id.hex()
        if guest in self._guests:
            self._refuse_twin(wire)
            return
        expected_key = wire.dialled.key if wire.dialled is not None else None
        if guest and expected_key:
            # Whoever is there is not the one whose key we want, and a guest can never show that it is.
            wire.refused_as = Cause.UNAUTHENTICATED.value
            wire.connection.close(Cause.UNAUTHENTICATED)
            return
        wire.seat.opened()
        wire.link = new_link_id()
        self._links[wire.link] = wire
        self._peers[wire.peer_id] += 1
        if guest:
            wire.guest = guest
            self._guests.add(guest)
        if wire.dialled is not None:
            wire.endpoint = wire.dialled.endpoint
        elif event.port is not None and wire.connection.address:
            wire.endpoint = endpoint(wire.connection.address, event.port)
        if wire.endpoint is not None:
            self._swarm.linked(wire.endpoint, self._clock())
        offered = wire.connection.offered
        ids = (self._peer_id, wire.peer_id) if offered else (wire.peer_id, self._peer_id)
        binding = webtorrent_binding(self._infohash, *ids)
        speech = SEALED_NATIVE
        if guest:
            speech = SWARM_SPACE if wire.connection.encrypted else SWARM_SPACE_CLEAR
        self._emit(LinkUp(wire.link, offered, binding, expected_key, speech, guest))
        for waiting in self._awaited.get(wire.peer_id, ()):
            if not waiting.done():
                waiting.set_result(None)
        self.on_change()

    def _refuse_twin(self, wire: _Wire) -> None:
        """Its peer is here already. It has our handshake, so it would dial again at once."""
        wire.refused_as = REFUSED_DUPLICATE
        address = self._redials_from(wire)
        if address:
            self._strangers.redials(address, self._clock())
        wire.connection.close(Cause.REFUSED)

    def _redials_from(self, wire: _Wire) -> str:
        """The address from which the peer of this wire will dial again; "" where it has not dialled."""
        return "" if wire.connection.offered else wire.connection.address

    def _is_useless(self, peer_id: bytes) -> bool:
        return self._strangers.is_useless(peer_id, self._clock())

    def _unwanted(self, connection: WireConnection, peer_id: bytes) -> bool:
        """Whether a peer that dialled us gets no handshake: it has no use for us, or is here already."""
        if self._is_useless(peer_id):
            return True
        if (peer_id, False, connection.address) not in self._directions:
            return False
        self._wires[connection].refused_as = REFUSED_DUPLICATE
        return True
