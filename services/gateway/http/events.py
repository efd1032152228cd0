"""Server-sent events: one hub, a bounded queue a stream.

*Back-pressure*: nobody waits for a reader. A stream that falls limits.MAX_QUEUED_EVENTS behind loses what it
has not read and gets one `resync` instead: its page then reads everything again. *Cancellation*: a stream ends
with its connection or at `close`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from services.gateway.http import limits
from services.gateway.http.problems import ApiProblem

RESYNC = b"event: resync\ndata: {}\n\n"
_KEEPALIVE = b": still here\n\n"
RETRY_MS = 2000
"""How long a browser waits before it connects again."""


class EventHub:
    """What views hear as it happens: transfer, status, stats, link, flags, blocklist, diagnostic, trace."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    def publish(self, event: str, body: Any) -> None:
        """Send to every stream. Encoded once, whatever the number of streams."""
        if not self._queues:
            return
        message = b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(body))
        for queue in self._queues:
            if queue.full():
                _empty(queue)
                message_or_resync = RESYNC
            else:
                message_or_resync = message
            queue.put_nowait(message_or_resync)

    def close(self) -> None:
        """End every stream."""
        for queue in self._queues:
            if queue.full():
                _empty(queue)
            queue.put_nowait(None)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """GET /api/events."""
        if len(self._queues) >= limits.MAX_EVENT_STREAMS:
            raise ApiProblem(503, "busy", "too many event streams", "close another page", retry_after_s=5.0)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(limits.MAX_QUEUED_EVENTS)
        self._queues.add(queue)
        try:
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Content-Type-Options": "nosniff",
                }
            )
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % RETRY_MS)
            await _stream(response, queue)
        finally:
            self._queues.discard(queue)
        return response


async def _stream(response: web.StreamResponse, queue: asyncio.Queue[bytes | None]) -> None:
    while True:
        try:
            async with asyncio.timeout(limits.STREAM_KEEPALIVE_S):
                message = await queue.get()
        except TimeoutError:
            message = _KEEPALIVE  # also how a dead connection is noticed
        if message is None:
            return
        await response.write(message)


def _empty(queue: asyncio.Queue[bytes | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
