"""A transport in memory: what the contract asks for and nothing more, for tests of everything above it."""

from __future__ import annotations

import asyncio
import hashlib

from shared.errors import Cause, TransportError
from shared.ids import LinkId, new_link_id, peerjs_id
from shared.speech.contract import SEALED_NATIVE
from shared.transport.contract import (
    Capabilities,
    Emit,
    LinkDown,
    LinkUp,
    PeerHint,
    RecordReceived,
    StateChanged,
    TransportEvent,
)
from shared.transports import TransportName, TransportState

MAX_RECORD_BYTES = 65_535
WINDOW_RECORDS = 16


class LoopNet:
    """Who is reachable, by identity key."""

    def __init__(self) -> None:
        self.listening: dict[bytes, LoopTransport] = {}
        self.binding_count = 0

    def guest(self, guest: str) -> LoopTransport | None:
        return next((one for key, one in self.listening.items() if peerjs_id(key) == guest), None)

    def new_binding(self) -> bytes:
        self.binding_count += 1
        return hashlib.sha256(self.binding_count.to_bytes(8, "big")).digest()


class LoopTransport:
    """Two of these on one LoopNet can link. `deliver` is where the broken ones break."""

    name = TransportName.WEBRTC
    capabilities = Capabilities(MAX_RECORD_BYTES, ordered=True, reliable=True, dials_guests=True)

    def __init__(self, net: LoopNet, identity_key: bytes = b"", speech: str = SEALED_NATIVE) -> None:
        """speech: what its links are for; with any but a sealed one, peers are guests known by their PeerJS ids."""
        self.net = net
        self.identity_key = identity_key
        self.speech = speech
        self._emit: Emit | None = None
        self._far: dict[LinkId, tuple[LoopTransport, LinkId]] = {}
        self._window: dict[LinkId, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> list[LinkId]:
        return list(self._far)

    def set_identity(self, identity_key: bytes) -> None:
        self.identity_key = identity_key

    def emit(self, event: TransportEvent) -> None:
        if self._emit is not None:
            self._emit(event)

    async def run(self, emit: Emit) -> None:
        self._emit = emit
        self.net.listening[self.identity_key] = self
        emit(StateChanged(TransportState.READY))
        try:
            await asyncio.Event().wait()
        finally:
            del self.net.listening[self.identity_key]
            for link in list(self._far):
                await self.close(link, Cause.CLOSED)
            self._emit = None

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        far = self.net.listening.get(hint.key) or self.net.guest(hint.peerjs_id)
        if far is None:
            raise TransportError(Cause.PEER_UNKNOWN)
        ours, theirs, binding = new_link_id(), new_link_id(), self.net.new_binding()
        self.join(ours, far, theirs)
        far.join(theirs, self, ours)
        far.emit(LinkUp(theirs, False, binding, None, self.speech, self._proves()))
        self.emit(LinkUp(ours, True, binding, hint.key or None, self.speech, far._proves()))

    def _proves(self) -> str:
        return "" if self.speech == SEALED_NATIVE else peerjs_id(self.identity_key)

    async def dial_unasked(self, key: bytes) -> None:
        """Open a link that nobody above asked for, as a swarm does."""
        await self.dial(PeerHint(key, ""), 1.0)

    def join(self, link: LinkId, far: LoopTransport, far_link: LinkId) -> None:
        self._far[link] = (far, far_link)
        self._window[link] = asyncio.Semaphore(WINDOW_RECORDS)

    async def send(self, link: LinkId, record: bytes) -> None:
        if len(record) > self.capabilities.max_record_bytes:
            raise TransportError(Cause.TOO_LARGE)
        if link not in self._far:
            raise TransportError(Cause.CLOSED)
        window = self._window[link]
        await window.acquire()
        if link not in self._far:
            raise TransportError(Cause.CLOSED)
        far, far_link = self._far[link]

        def arrive() -> None:
            window.release()
            far.deliver(far_link, record)

        asyncio.get_running_loop().call_soon(arrive)

    def deliver(self, link: LinkId, record: bytes) -> None:
        if link in self._far:
            self.emit(RecordReceived(link, record))

    async def close(self, link: LinkId, cause: Cause) -> None:
        pair = self._far.pop(link, None)
        if pair is None:
            return
        self.emit(LinkDown(link, cause))
        far, far_link = pair
        await far.close(far_link, Cause.CLOSED)
