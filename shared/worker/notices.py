"""What managers are to hear of the requests that they sent: one ordered queue, since each takes a round trip.

Bound: progress is dropped when MAX_QUEUED wait, as the next one says more; ends are never dropped, because each ends a
request of ours (asking.MAX_ASKED) or a link, of which a transport has a limited number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import assert_never

from shared.speech.contract import AnswerProgressed, AnswerReceived, RequestFailed
from shared.transport.contract import LinkDown
from shared.worker.asking import Asking
from shared.worker.session import LinkSession
from shared.worker.status import StatusTracker

MAX_QUEUED = 4096
"""Progress of eight times as many requests as a worker may have out."""

Notice = AnswerProgressed | AnswerReceived | RequestFailed | LinkDown


class Notices:
    """Driven by: the links' `queue`, from the event loop, and `run` in a task of the worker's."""

    def __init__(self, asking: Asking, status: StatusTracker) -> None:
        self._asking = asking
        self._status = status
        self._queue: deque[tuple[LinkSession, Notice]] = deque()
        self._filled = asyncio.Event()

    def queue(self, session: LinkSession, event: Notice) -> None:
        # Ends always fit: they are as many as requests and links, which others bound.
        if isinstance(event, AnswerProgressed) and len(self._queue) >= MAX_QUEUED:
            return
        self._queue.append((session, event))
        self._filled.set()

    async def run(self) -> None:
        """Send them, in order, until cancelled."""
        while True:
            # Before the queue is looked at: what comes during an await below sets it again.
            self._filled.clear()
            while self._queue:
                session, event = self._queue.popleft()
                await self._notify(session, event)
            await self._filled.wait()

    async def _notify(self, session: LinkSession, event: Notice) -> None:
        match event:
            case AnswerProgressed():
                await self._asking.progressed(event.request_id, event.bytes)
            case AnswerReceived():
                self._status.worked()
                await self._asking.answered(event.request_id, event.answer, event.body)
            case RequestFailed():
                self._status.send_failed(event.cause)
                await self._asking.failed(event.request_id, event.cause, event.retry_after_ms)
            case LinkDown():
                await self._asking.link_down(session, event.cause)
            case _:
                assert_never(event)
