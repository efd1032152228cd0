"""Calls that outlive the process serving them: deliveries at a manager, transfers at a chunk instance.

A call is taken at once (`Taken`), its messages come to `sb.N.reply.<instance>`. One loop pings the servers of
all calls every 250 ms; where a server is gone (503, two misses) or no longer knows a call, the call is asked
again with the SAME id. Whatever dies, the caller gets one final message, or BusTimeout at its deadline.

A server of such calls answers `Ping(calls)` with `Pong(unknown)` on its instance's subject, and takes an id
that it is already working on without starting it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from shared.backoff import delays_s
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import Ping, Pong, ReplyMessage, Taken, TransferUpdate
from shared.bus.messages.subjects import Subjects
from shared.clock import monotonic
from shared.errors import (
    BusError,
    BusTimeout,
    BusUnavailable,
    Cause,
    LocalProtocolError,
    NoResponders,
    RemoteFailure,
    SwarmbridgeError,
)
from shared.tasks.ending import end_tasks

PING_INTERVAL_S = 0.25
"""docs/delivering.md. A killed server is noticed within one interval, a frozen one within MAX_MISSES + 1."""

MAX_MISSES = 2
ASK_TIMEOUT_S = 1.0
"""How long one server may take to say Taken before another is asked: a frozen member of the queue group keeps
getting its share for seconds (docs/nats.md)."""

RETRY_FIRST_S = 0.02
RETRY_CAP_S = 0.5
UNKNOWN_GRACE_S = 0.1
"""After a server said it no longer knows a call: its final message may still be on its way to us."""

MAX_WAITING_MESSAGES = 256
"""Messages of one call that wait for `on_message`; one more is refused as BUSY."""

OnMessage = Callable[[ReplyMessage], Awaitable[bool]]
"""Takes one message of a call; True when it is the final one."""

log = logging.getLogger(__name__)


@dataclass
class _Call:
    subject: str
    call_id: bytes
    body: msgspec.Struct
    deadline_s: float
    messages: asyncio.Queue[ReplyMessage | SwarmbridgeError] = field(
        default_factory=lambda: asyncio.Queue(MAX_WAITING_MESSAGES)
    )
    server: str = ""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    grace_s: float = 0.0

    def lose(self, grace_s: float = 0.0) -> None:
        """Its server is gone or has forgotten it: ask again, after `grace_s`."""
        self.server = ""
        self.grace_s = grace_s
        self.lost.set()


class Calls:
    """All calls of one process to one kind of server.

    server_subject: the instance subject of a server by its name (`subjects.manager`, `subjects.chunk_instance`).
    """

    def __init__(self, bus: Bus, subjects: Subjects, server_subject: Callable[[str], str]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._server_subject = server_subject
        self._calls: dict[bytes, _Call] = {}
        self._misses: dict[str, int] = {}
        self._subscription: Subscription | None = None
        self._pinger: asyncio.Task[None] | None = None
        self.asked_again = 0
        self.late = 0
        """Messages for calls that are over or never were: duplicates, and answers after the deadline."""

    async def start(self) -> None:
        self._subscription = await self._bus.serve(
            self._subjects.reply(self._bus.instance), ReplyMessage, self._receive, max_concurrent=1024
        )
        self._pinger = asyncio.create_task(self._ping_forever(), name="calls")

    async def close(self) -> None:
        """Stop listening; calls in flight end with BusUnavailable."""
        await end_tasks([self._pinger])
        if self._subscription is not None:
            await self._subscription.close()
        for call in self._calls.values():
            _put(call, BusUnavailable("closing"))

    async def call(
        self,
        subject: str,
        call_id: bytes,
        body: msgspec.Struct,
        timeout_s: float,
        on_message: OnMessage,
        *,
        on_cancel: msgspec.Struct | None = None,
    ) -> ReplyMessage:
        """Ask `subject` (reply: Taken) and keep the call alive until `on_message` has seen its final message.

        `on_message` gets the call's messages one at a time, in order; what it raises, this raises.
        Cancellation: ends the call here, and sends `on_cancel` (CancelDelivery, CancelCall) to the server that has it.
        Returns: the final message.
        Raises: BusTimeout at the deadline; RemoteFailure where a server refused the call (BUSY and DRAINING
            are asked again); LocalProtocolError where the id is already in use here.
        """
        if call_id in self._calls:
            raise LocalProtocolError("this call is already in flight")
        call = _Call(subject, call_id, body, monotonic() + timeout_s)
        self._calls[call_id] = call
        keeper = asyncio.create_task(self._keep(call), name="call")
        try:
            async with asyncio.timeout(timeout_s) as limit:
                return await _finish(call, on_message)
        # Ours, or one that `on_message` raised: only ours is the deadline.
        except TimeoutError:
            if limit.expired():
                raise BusTimeout("no final answer by the deadline") from None
            raise
        except asyncio.CancelledError:
            await self._notify_cancelled(call, on_cancel)
            raise
        finally:
            del self._calls[call_id]
            await end_tasks([keeper])

    async def _notify_cancelled(self, call: _Call, on_cancel: msgspec.Struct | None) -> None:
        if on_cancel is None or not call.server:
            return
        try:
            await self._bus.publish(self._server_subject(call.server), on_cancel)
        except BusError as error:
            log.debug("cancel: %s", error.cause)  # unpinged, the server gives the call up by itself

    async def _receive(self, message: ReplyMessage, incoming: Incoming) -> None:
        call = self._calls.get(message.call_id if isinstance(message, TransferUpdate) else message.delivery_id)
        if call is None:
            self.late += 1
            log.debug("a message for a call that is over, %d so far", self.late)
        elif not _put(call, message):
            raise SwarmbridgeError(Cause.BUSY, "messages of this call come faster than they are taken")

    async def _keep(self, call: _Call) -> None:
        """Have a server for the call, again and again."""
        try:
            while True:
                call.server = await self._ask(call)
                await call.lost.wait()
                self.asked_again += 1
                log.info("a call's server is gone or has forgotten it: asking again, %d so far", self.asked_again)
                await asyncio.sleep(call.grace_s)
                call.lost.clear()
        except SwarmbridgeError as error:
            _put(call, error)

    async def _ask(self, call: _Call) -> str:
        """The server that took the call. Asks for as long as it takes: the caller's deadline ends it."""
        for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
            remaining_s = call.deadline_s - monotonic()
            try:
                # The envelope carries the call's deadline; each server has ASK_TIMEOUT_S to take it.
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    taken = await self._bus.request(call.subject, call.body, Taken, max(remaining_s, 0.001))
            # At once, to another one: this one had its second.
            except TimeoutError:
                continue
            except (NoResponders, BusTimeout, BusUnavailable):
                await asyncio.sleep(delay_s)
            except RemoteFailure as error:
                if error.cause not in (Cause.BUSY, Cause.DRAINING):
                    raise
                await asyncio.sleep(max(error.retry_after_s, delay_s))
            else:
                return taken.instance
        raise AssertionError("delays never end")

    async def _ping_forever(self) -> None:
        while True:
            servers: dict[str, list[_Call]] = {}
            for call in self._calls.values():
                if call.server:
                    servers.setdefault(call.server, []).append(call)
            # Servers without a call of ours are forgotten, with their misses.
            self._misses = {server: self._misses.get(server, 0) for server in servers}
            # At least an interval, and until the slowest ping is over: never two pings of one server at a time.
            await asyncio.gather(asyncio.sleep(PING_INTERVAL_S), *(self._ping(*item) for item in servers.items()))

    async def _ping(self, server: str, calls: list[_Call]) -> None:
        try:
            pong = await self._bus.request(
                self._server_subject(server), Ping([call.call_id for call in calls]), Pong, PING_INTERVAL_S
            )
        except NoResponders:
            self._lose(server, calls)
            return
        except BusTimeout:
            self._misses[server] += 1
            if self._misses[server] >= MAX_MISSES:
                self._lose(server, calls)
            return
        except BusError as error:
            # Not connected, or the server is busy: neither tells that it has lost our calls.
            log.debug("ping: %s", error.cause)
            return
        self._misses[server] = 0
        unknown = set(pong.unknown)
        self._lose(server, [call for call in calls if call.call_id in unknown], UNKNOWN_GRACE_S)

    def _lose(self, server: str, calls: list[_Call], grace_s: float = 0.0) -> None:
        for call in calls:
            # It may have been taken by another one while the ping was out.
            if call.server == server:
                call.lose(grace_s)


async def _finish(call: _Call, on_message: OnMessage) -> ReplyMessage:
    while True:
        message = await call.messages.get()
        if isinstance(message, SwarmbridgeError):
            raise message
        if await on_message(message):
            return message


def _put(call: _Call, message: ReplyMessage | SwarmbridgeError) -> bool:
    if isinstance(message, SwarmbridgeError) and call.messages.full():
        call.messages.get_nowait()  # an end must get through; a message it displaces no longer matters
    try:
        call.messages.put_nowait(message)
    except asyncio.QueueFull:
        return False
    return True
