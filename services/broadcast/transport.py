"""The broadcast transport between nodes on one bus: links over the account `mesh`, scoped by origin and channel.

A node's workers serve `….node.<peer token>` as one queue group; a dial is one request there, so that a peer who
is not on this bus is known at once (`no_listener`). From then on both ends talk to each other's
`….worker.<instance>`, one subscription a worker, with the link's id inside.

A post that nobody takes is a failure of its link, never a success (a BroadcastChannel cannot tell).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Coroutine

from services.broadcast.limits import (
    LINK_ID_BYTES,
    MAX_LINKS,
    MAX_RECORD_BYTES,
    PROBE_INTERVAL_S,
    REFUSED_LINKS,
    REFUSED_MESSAGE,
    REFUSED_ORDER,
    REFUSED_RECORD,
    WINDOW_RECORDS,
)
from services.broadcast.link import MeshLink
from services.broadcast.messages import (
    CloseLink,
    LinkMessage,
    LinkOpened,
    OpenLink,
    Post,
    is_link_id,
)
from services.broadcast.pages.service import UNUSABLE, WAITING, Pages
from shared.backoff import delays_s
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.records import MeetingPlace
from shared.bus.messages.subjects import QUEUE_LINK, broadcast_node, broadcast_worker
from shared.clock import Clock, monotonic
from shared.errors import (
    BusError,
    BusTimeout,
    Cause,
    LocalProtocolError,
    NoResponders,
    RemoteFailure,
    RemoteProtocolError,
    SwarmbridgeError,
    TransportError,
)
from shared.ids import LinkId, is_instance, member_token
from shared.tasks.ending import end_tasks
from shared.transport.contract import Capabilities, Emit, LinkDown, LinkUp, PeerHint, RecordReceived, StateChanged
from shared.transports import TransportName, TransportState
from shared.wire.sealed.binding import broadcast_binding

SERVE_RETRY_FIRST_S, SERVE_RETRY_CAP_S = 0.1, 2.0
"""Between tries to serve our subjects while the bus is away."""

log = logging.getLogger(__name__)


class BroadcastTransport:
    """Implements shared.transport.contract.Transport over the account `mesh`.

    origin, channel: the scope; only nodes that use the same two reach each other.
    """

    name = TransportName.BROADCAST
    capabilities = Capabilities(max_record_bytes=MAX_RECORD_BYTES, ordered=True, reliable=True, dials_guests=True)

    def __init__(
        self, mesh: Bus, origin: str, channel: str, *, pages: Pages | None = None, clock: Clock = monotonic
    ) -> None:
        self._refused: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._pages = pages
        self._mesh = mesh
        self._origin, self._channel = origin, channel
        self._clock = clock
        self._peer = ""
        self._emit: Emit | None = None
        self._state: StateChanged | None = None
        self._links: dict[LinkId, MeshLink] = {}
        self._dialling = 0
        self._subscriptions: list[Subscription] = []
        self._ending: set[asyncio.Task[None]] = set()

    def set_identity(self, identity_key: bytes) -> None:
        """The node's 32-byte Ed25519 key: others dial the token made of it."""
        self._peer = member_token(identity_key)

    @property
    def refused(self) -> Counter[str]:
        """Refusals by the names in `limits`, and those of pages by cause, until whoever reads them clears it."""
        if self._pages is not None:
            said = Counter(self._pages.refused())
            # A port that was opened again counts from nothing.
            self._refused += said - self._counted if said >= self._counted else said
            self._counted = said
        return self._refused

    @property
    def pages_url(self) -> str:
        """Where pages join; "" where they cannot."""
        return self._pages.url if self._pages is not None else ""

    def meeting_places(self) -> list[MeetingPlace]:
        """Whether pages are taken here."""
        return [self._pages.place] if self._pages is not None else []

    # ── the contract ─────────────────────────────────────────────────────────────────────────────────────

    async def run(self, emit: Emit) -> None:
        if not self._peer:
            raise LocalProtocolError("the transport runs before it has an identity")
        self._emit = emit
        self._state = None
        pages = asyncio.create_task(self._pages.run(emit), name="pages") if self._pages is not None else None
        try:
            await self._serve()
            while True:
                if pages is not None and pages.done():
                    pages.result()  # it ends by an error of ours alone: the transport does too, and is run again
                self._report_mesh()
                for link in list(self._links.values()):
                    link.probe_if_silent()
                await asyncio.sleep(PROBE_INTERVAL_S)
        finally:
            await end_tasks([pages])
            await self._stop()

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        if self._emit is None:
            raise TransportError(Cause.DISABLED)
        if not hint.key:
            # A page comes by itself or not at all: nobody listens under this id.
            raise TransportError(Cause.NO_LISTENER)
        if len(self._links) + self._dialling >= MAX_LINKS:
            self._refused[REFUSED_LINKS] += 1
            raise TransportError(Cause.BUSY)
        own_id = os.urandom(LINK_ID_BYTES)
        subject = broadcast_node(self._origin, self._channel, member_token(hint.key))
        self._dialling += 1
        try:
            call = OpenLink(own_id, self._mesh.instance)
            opened = await self._mesh.request(subject, call, LinkOpened, timeout_s)
        except NoResponders:
            raise TransportError(Cause.NO_LISTENER) from None
        except BusTimeout:
            raise TransportError(Cause.DIAL_TIMEOUT) from None
        except RemoteFailure as error:
            raise TransportError(error.cause) from None
        except BusError:
            raise TransportError(Cause.SIGNALLING_UNAVAILABLE) from None
        finally:
            self._dialling -= 1
        if not is_link_id(opened.to_link) or not is_instance(opened.to_worker):
            self._refused[REFUSED_MESSAGE] += 1
            raise TransportError(Cause.INVALID)
        self._up(own_id, opened.to_link, opened.to_worker, hint.key, dialer=True)

    async def send(self, link: LinkId, record: bytes) -> None:
        if len(record) > MAX_RECORD_BYTES:
            raise TransportError(Cause.TOO_LARGE)
        if self._pages is not None and self._pages.has(link):
            await self._pages.send(link, record)
            return
        found = self._links.get(link)
        if found is None:
            raise TransportError(Cause.CLOSED)
        await found.send(record)

    async def close(self, link: LinkId, cause: Cause) -> None:
        if self._pages is not None:
            self._pages.close(link, cause)
        found = self._links.get(link)
        if found is not None:
            found.fail(cause)

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        """Have our two subjects; try for as long as it takes."""
        node = broadcast_node(self._origin, self._channel, self._peer)
        worker = broadcast_worker(self._origin, self._channel, self._mesh.instance)
        for delay_s in delays_s(SERVE_RETRY_FIRST_S, SERVE_RETRY_CAP_S):
            try:
                # The worker's first: an OpenLink names it.
                if not self._subscriptions:
                    most = MAX_LINKS * WINDOW_RECORDS
                    self._subscriptions.append(
                        await self._mesh.serve(worker, LinkMessage, self._message, max_concurrent=most)
                    )
                self._subscriptions.append(await self._mesh.serve(node, OpenLink, self._open, queue=QUEUE_LINK))
                return
            except BusError as error:
                self._say(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE)
                log.warning("waiting for the mesh: %s", error.cause.value)
                await asyncio.sleep(delay_s)

    async def _stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        if len(subscriptions) > 1:
            await subscriptions[1].close()
        for link in list(self._links.values()):
            link.fail(Cause.CLOSED)
        if self._ending:
            await asyncio.wait(self._ending)
        if subscriptions:
            await subscriptions[0].close()
        self._emit = None

    async def _open(self, call: OpenLink, incoming: Incoming) -> LinkOpened:
        if not is_link_id(call.from_link) or not is_instance(call.from_worker):
            self._refused[REFUSED_MESSAGE] += 1
            raise SwarmbridgeError(Cause.INVALID)
        if len(self._links) + self._dialling >= MAX_LINKS:
            self._refused[REFUSED_LINKS] += 1
            raise SwarmbridgeError(Cause.BUSY)
        own_id = os.urandom(LINK_ID_BYTES)
        self._up(own_id, call.from_link, call.from_worker, None, dialer=False)
        return LinkOpened(own_id, self._mesh.instance)

    async def _message(self, message: LinkMessage, incoming: Incoming) -> None:
        link = self._links.get(LinkId(message.link.hex()))
        if link is None:
            # A link that went down a moment ago, or one that never was.
            raise SwarmbridgeError(Cause.CLOSED)
        link.heard()
        if isinstance(message, CloseLink):
            link.fail(message.cause, tell=False)
        elif isinstance(message, Post):
            self._arrived(link, message)

    def _arrived(self, link: MeshLink, post: Post) -> None:
        try:
            records = link.receive(post.number, bytes(post.record))
        except RemoteProtocolError as error:
            self._refused[REFUSED_RECORD if error.cause is Cause.TOO_LARGE else REFUSED_ORDER] += 1
            link.fail(error.cause)
            raise
        for record in records:
            if self._emit is not None and not link.down:
                self._emit(RecordReceived(link.link, record))

    def _up(self, own_id: bytes, far_id: bytes, far_worker: str, expected_key: bytes | None, *, dialer: bool) -> None:
        far_subject = broadcast_worker(self._origin, self._channel, far_worker)
        link = MeshLink(own_id, far_id, far_subject, self._mesh, self._clock, self._down)
        if self._emit is None:  # switched off while the dial was on its way
            self._start(link.finish(Cause.DISABLED))
            raise TransportError(Cause.DISABLED)
        self._links[link.link] = link
        dialer_id, listener_id = (own_id, far_id) if dialer else (far_id, own_id)
        binding = broadcast_binding(self._origin, self._channel, dialer_id, listener_id)
        self._emit(LinkUp(link.link, dialer, binding, expected_key))

    def _down(self, link: MeshLink, cause: Cause) -> None:
        del self._links[link.link]
        if self._emit is not None:
            self._emit(LinkDown(link.link, cause))
        self._start(link.finish(cause))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _report_mesh(self) -> None:
        if not self._mesh.connected:
            self._say(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE)
        elif self._pages is not None and self._pages.place.state in (UNUSABLE, WAITING):
            self._say(TransportState.DEGRADED, self._pages.place.cause)
        else:
            self._say(TransportState.READY, None)

    def _say(self, state: TransportState, cause: Cause | None) -> None:
        said = StateChanged(state, cause)
        if said != self._state and self._emit is not None:
            self._state = said
            self._emit(said)
