"""Puts and fetches at the chunk service: each an owned task that outlives the HTTP request that asked for it.

*Cancellation*: `cancel`, and closing the process, end the call here and tell the chunk instance that works on it.
*Back-pressure*: limits.MAX_RUNNING_TRANSFERS at a time; one more is refused as `busy`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from opentelemetry.context import Context

from services.gateway.transfers import limits
from services.gateway.transfers.board import RUNNING, TransferBoard
from services.gateway.transfers.spool import SpoolFile
from shared.bus.bodies import BodyHolder
from shared.bus.calls import Calls
from shared.bus.chunk_api import CancelCall, FetchFile, PutFile
from shared.bus.contract import Bus
from shared.bus.messages.conversations import CHUNK
from shared.bus.messages.envelopes import ReplyMessage, TransferUpdate
from shared.bus.messages.subjects import Subjects
from shared.bus.serving import mark_failed
from shared.clock import Clock, monotonic, unix_ms
from shared.content.link import ContentLink
from shared.errors import Cause, RemoteFailure, SwarmbridgeError
from shared.gateway_api.structs import Transfer
from shared.ids import new_request_id
from shared.tasks.owned import Tasks
from shared.telemetry import names, tracer

# A reader's body costs no memory; what is read ahead of the bus is a few ranges at a time.
HELD_MEMORY_BYTES = 16 * limits.MIB
WATCH_INTERVAL_S = 0.25


class TransferCalls:
    """The transfers that this gateway asked for."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        tasks: Tasks,
        transfers: TransferBoard,
        on_change: Callable[[Transfer], None],
        clock: Clock = monotonic,
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._subjects = subjects
        self._tasks = tasks
        self._transfers = transfers
        self._on_change = on_change
        # A call waits its turn in a spool file for as long as the call itself may take.
        self._holder = BodyHolder(bus, subjects, max_total_bytes=HELD_MEMORY_BYTES, ttl_s=limits.TRANSFER_DEADLINE_S)
        self._calls = Calls(bus, subjects, subjects.chunk_instance)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._heard_s: dict[str, float] = {}
        """When a running transfer's last update came."""
        self._watched_s = clock()

    async def start(self) -> None:
        await self._holder.start()
        await self._calls.start()
        self._tasks.start(self._watch_forever(), name="silent transfers")

    async def close(self) -> None:
        """End every call here and give up what they hold."""
        running = list(self._running.values())
        # Before the calls are closed: a cancelled one still notifies its chunk instance.
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        await self._calls.close()
        await self._holder.close()

    def check_room(self) -> None:
        """Raises: SwarmbridgeError(BUSY) when one more transfer would be too many."""
        if len(self._running) >= limits.MAX_RUNNING_TRANSFERS:
            raise RemoteFailure(Cause.BUSY, 5.0)

    def start_put(self, spool: SpoolFile, name: str, mime: str, content_class: str, *, again: bool = False) -> Transfer:
        """Store a spooled file; the file is closed when the put has ended, however it ends.

        again: under a new link, even where this very file is stored already.
        Raises: SwarmbridgeError(BUSY); the caller then still owns the file.
        """
        self.check_room()
        ref = self._holder.hold_reader(spool.length, spool.read, CHUNK)
        call_id = new_request_id()
        put = PutFile(call_id, self._bus.instance, ref, name, mime, content_class, again)

        def give_up() -> None:
            self._holder.release(ref.token)
            spool.close()

        transfer = self._transfers.begin(call_id, "put", name, spool.length, unix_ms())
        self._start(transfer, self._subjects.chunk("put"), call_id, put, give_up)
        return transfer

    def start_fetch(self, link: ContentLink) -> Transfer:
        """Fetch what a link names. Its key stays with whoever holds the link: fetching needs none.

        Raises: SwarmbridgeError(BUSY).
        """
        self.check_room()
        call_id = new_request_id()
        fetch = FetchFile(call_id, self._bus.instance, link.digest, list(link.holders))
        transfer = self._transfers.begin(call_id, "get", "", 0, unix_ms(), link.digest)
        self._start(transfer, self._subjects.chunk("fetch"), call_id, fetch, lambda: None)
        return transfer

    async def cancel(self, transfer_id: str) -> bool:
        """Returns: False where this gateway has no such transfer running."""
        task = self._running.get(transfer_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        # After its end: an update that came meanwhile may have said that it is done, and that stands.
        self._changed(self._transfers.fail(transfer_id, Cause.CLOSED))
        return True

    def _start(
        self,
        transfer: Transfer,
        subject: str,
        call_id: bytes,
        body: msgspec.Struct,
        give_up: Callable[[], None],
    ) -> None:
        task = self._tasks.start(self._run(transfer, subject, call_id, body), name=f"{transfer.kind} transfer")
        self._running[transfer.id] = task
        self._heard_s[transfer.id] = self._clock()

        # Not in a `finally` of the task: one that is cancelled before its first step never gets there.
        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(transfer.id, None)
            self._heard_s.pop(transfer.id, None)
            give_up()

        task.add_done_callback(ended)
        self._changed(transfer)

    async def _run(self, transfer: Transfer, subject: str, call_id: bytes, body: msgspec.Struct) -> None:
        # A root of its own: what asked for it over HTTP ended when it was accepted.
        with tracer().start_as_current_span(
            names.SPAN_GATEWAY_TRANSFER, context=Context(), record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(names.TRANSFER, transfer.id)
            span.set_attribute(names.REQUEST_KIND, transfer.kind)
            try:
                await self._calls.call(
                    subject,
                    call_id,
                    body,
                    limits.TRANSFER_DEADLINE_S,
                    self._on_message,
                    on_cancel=CancelCall(call_id),
                )
            except SwarmbridgeError as error:
                mark_failed(span, error.cause)
                self._changed(self._transfers.fail(transfer.id, error.cause))

    async def _on_message(self, message: ReplyMessage) -> bool:
        if not isinstance(message, TransferUpdate):
            return False
        self._heard_s[message.call_id.hex()] = self._clock()
        self._changed(self._transfers.apply(message))
        return message.state != RUNNING

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self.watch()

    def watch(self) -> None:
        """Tell of transfers of which nothing is heard, and end those of which nothing was for too long."""
        now_s = self._clock()
        # This process was stopped for a while, or its loop held: transfers were not silent for that long.
        held_s = now_s - self._watched_s
        if held_s >= limits.SILENT_AFTER_S:
            self._heard_s = {transfer_id: heard_s + held_s for transfer_id, heard_s in self._heard_s.items()}
        self._watched_s = now_s
        for transfer_id, task in list(self._running.items()):
            silent_s = now_s - self._heard_s[transfer_id]
            cause = Cause.WORKER_LOST if self._bus.connected else Cause.BUS_UNAVAILABLE
            if silent_s >= limits.STALLED_AFTER_S:
                # Failed first: what the cancelled call comes to does not matter any more.
                self._changed(self._transfers.fail(transfer_id, cause))
                task.cancel()
            elif silent_s >= limits.SILENT_AFTER_S or not self._bus.connected:
                self._changed(self._transfers.wait(transfer_id, cause))

    def _changed(self, transfer: Transfer | None) -> None:
        if transfer is not None:
            self._on_change(transfer)
