"""One link to a broadcast worker of another node: a window of acknowledged posts out, records in order in.

Back-pressure: `send` waits while WINDOW_RECORDS records or QUEUE_BYTES bytes are unacknowledged.
Cancellation: a cancelled `send` may have posted its record; the link stays in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.broadcast.limits import MAX_MISSES, POST_TIMEOUT_S, PROBE_AFTER_S, QUEUE_BYTES, WINDOW_RECORDS
from services.broadcast.messages import CloseLink, LinkMessage, Post, Probe
from services.broadcast.ordering import InOrder
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Done
from shared.clock import Clock
from shared.errors import BusError, BusTimeout, Cause, NoResponders, RemoteFailure, TransportError
from shared.ids import LinkId
from shared.tasks.ending import end_tasks


class MeshLink:
    """far_id: the remote peer's id of this link; far_subject: its worker's subject.

    on_down is called once, with the cause, when the link is lost or closed.
    """

    def __init__(
        self,
        own_id: bytes,
        far_id: bytes,
        far_subject: str,
        mesh: Bus,
        clock: Clock,
        on_down: Callable[[MeshLink, Cause], None],
    ) -> None:
        self.link = LinkId(own_id.hex())
        self._far_id = far_id
        self._far_subject = far_subject
        self._mesh = mesh
        self._clock = clock
        self._on_down = on_down
        self._heard_s = clock()
        self._misses = 0
        self._next = 0
        self._in_flight_bytes = 0
        self._posts: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._arriving = InOrder()
        self._notify_far = True
        self.down = False

    async def send(self, record: bytes) -> None:
        """Post one record when there is room. Raises: TransportError(CLOSED) when the link is down."""
        while not self.down and self._is_full(len(record)):
            self._room.clear()
            await self._room.wait()
        if self.down:
            raise TransportError(Cause.CLOSED)
        post = Post(self._far_id, self._next, memoryview(record))
        self._next += 1
        self._in_flight_bytes += len(record)
        task = asyncio.create_task(self._post(post))
        self._posts.add(task)
        task.add_done_callback(self._ended)

    def receive(self, number: int, record: bytes) -> list[bytes]:
        """A record from the remote peer. Returns and raises: as InOrder.receive."""
        self.heard()
        return self._arriving.receive(number, record)

    def heard(self) -> None:
        """The remote peer showed that it is there."""
        self._heard_s = self._clock()
        self._misses = 0

    def probe_if_silent(self) -> None:
        """Ask whether the remote peer is still there, where nothing was heard for PROBE_AFTER_S."""
        if self.down or self._probe is not None or self._clock() - self._heard_s < PROBE_AFTER_S:
            return
        self._probe = asyncio.create_task(self._ask_whether_there())
        self._probe.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A post or a probe that broke would leave a link that looks alive and carries nothing."""
        self._posts.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fail(Cause.OTHER)

    def fail(self, cause: Cause, *, tell: bool = True) -> None:
        """The link is down from now on; the first cause counts. tell: whether the remote peer may not know yet."""
        if self.down:
            return
        self.down = True
        self._notify_far = tell
        self._room.set()
        self._on_down(self, cause)

    async def finish(self, cause: Cause) -> None:
        """End what is in flight: let posted records arrive, then tell the remote peer where it may not know."""
        if self._notify_far:
            if self._posts:
                await asyncio.wait(self._posts, timeout=POST_TIMEOUT_S)
            await self._tell(CloseLink(self._far_id, cause))
        await end_tasks([*self._posts, self._probe])

    def _is_full(self, length: int) -> bool:
        """A record that alone is over what is left may go when nothing else is in flight."""
        full = len(self._posts) >= WINDOW_RECORDS
        return full or bool(self._posts and self._in_flight_bytes + length > QUEUE_BYTES)

    async def _post(self, post: Post) -> None:
        cause = await self._tell(post)
        self._in_flight_bytes -= len(post.record)
        task = asyncio.current_task()
        if task is not None:
            self._posts.discard(task)  # now, not when it has ended: `send` may look in between
        self._room.set()
        if cause is not None:
            self.fail(cause, tell=cause is not Cause.NO_LISTENER)
        else:
            self.heard()

    async def _ask_whether_there(self) -> None:
        cause = await self._tell(Probe(self._far_id))
        self._probe = None
        if cause is None:
            self.heard()
            return
        self._misses += 1
        if cause is not Cause.SILENT or self._misses >= MAX_MISSES:
            self.fail(cause)

    async def _tell(self, message: LinkMessage) -> Cause | None:
        """Say it to the far worker. Returns: why it was not taken, None when it was. A post to nobody is a failure."""
        try:
            await self._mesh.request(self._far_subject, message, Done, POST_TIMEOUT_S)
        except NoResponders:
            return Cause.NO_LISTENER
        except RemoteFailure as error:
            return error.cause
        except BusTimeout:
            return Cause.SILENT
        except BusError:
            return Cause.CLOSED
        return None
