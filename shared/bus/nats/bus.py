"""The bus over NATS: `contract.Bus` for a running process. See `connection` for what it guards against."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import UnionType
from typing import Any, TypeVar

import msgspec

from shared.bus.contract import Handler, KeyValue, Subscription
from shared.bus.messages.codec import decode_envelope, decode_reply, encode_envelope
from shared.bus.messages.conversations import may_answer
from shared.bus.nats import jetstream
from shared.bus.nats.connection import ConnectionOptions, Interest, NatsConnection, kind_of
from shared.bus.nats.jetstream import Record
from shared.bus.nats.kv import NatsKeyValue
from shared.bus.nats.layout import Place, wait_for_stream
from shared.bus.nats.permissions import micro_name
from shared.bus.nats.reader import OrderedReader
from shared.bus.serving import BusCounts, Serving, send_span
from shared.clock import unix_ms
from shared.errors import BusError, SwarmbridgeError
from shared.telemetry.propagation import current_traceparent

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


async def connect(
    url: str,
    instance: str,
    *,
    seed: str | None = None,
    service: str = "",
    announce: bool = False,
    scope: str = "",
    ca_file: str = "",
) -> NatsBus:
    """Connect a process to its account.

    Args:
        url: one NATS URL, or several of one cluster separated by commas.
        instance: the process's own name, safe as a subject token.
        seed: nkey seed (`SU…`) of its user; None where the server asks for none.
        service: whose user it is: answers to its requests come to this name, and it answers those who may ask it.
        announce: whether to be found by NATS micro (PING, INFO, STATS).
        ca_file: PEM of the one authority that the server's certificate may be of, "" = the system's.
        scope: the node's id where several nodes share the account (layout.scoped_name), else "".
    Raises: as NatsConnection.open.
    """
    counts = BusCounts()
    options = ConnectionOptions(url, instance, seed, service, micro_name(service) if announce else "", ca_file)
    connection = NatsConnection(options, counts)
    await connection.open()
    return NatsBus(instance, connection, counts, scope, service)


class _Served:
    """A served subject: its interest and its handlers."""

    def __init__(self, bus: NatsBus, interest: Interest, serving: Serving[Any]) -> None:
        self._bus = bus
        self.interest = interest
        self.serving = serving

    async def close(self) -> None:
        self._bus.forget(self)
        await self.interest.close()


class NatsBus:
    """Implements shared.bus.contract.Bus."""

    def __init__(
        self, instance: str, connection: NatsConnection, counts: BusCounts, scope: str = "", service: str = ""
    ) -> None:
        self.instance = instance
        self.connection = connection
        self.counts = counts
        self._scope = scope
        self._service = service
        self._served: dict[_Served, None] = {}
        self._unserved: dict[_Served, None] = {}

    @property
    def connected(self) -> bool:
        return self.connection.connected

    async def publish(self, subject: str, body: msgspec.Struct) -> None:
        await self.connection.publish(subject, encode_envelope(body, 0, current_traceparent()))

    async def request(self, subject: str, body: msgspec.Struct, reply_type: type[R] | UnionType, timeout_s: float) -> R:
        with send_span(subject) as traceparent:
            data = encode_envelope(body, unix_ms() + round(timeout_s * 1000), traceparent)
            message = await self.connection.request(subject, data, timeout_s)
            return decode_reply(message.data, reply_type)

    async def serve(
        self,
        subject: str,
        body_type: type[T] | UnionType,
        handler: Handler[T],
        *,
        queue: str = "",
        max_concurrent: int = 256,
    ) -> Subscription:
        serving: Serving[T] = Serving(body_type, handler, max_concurrent, self.counts)

        def on_message(at: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
            if headers or (reply and not may_answer(self._service, at, reply)):
                # Nothing of ours has headers: JetStream was made to send this. And whoever wants its answer where no
                # caller of this subject hears it wants us to write what it may not write itself.
                self.counts.strays += 1
                log.error(
                    "a message that no service of ours sends, on %s: %d so far", kind_of(subject), self.counts.strays
                )
                return
            serving.receive(at, data, partial(self.connection.publish, reply) if reply else None)

        served = _Served(self, await self.connection.subscribe(subject, on_message, queue), serving)
        self._served[served] = None
        return served

    def forget(self, served: _Served) -> None:
        """Its interest ends; its handlers in flight are still waited for at close."""
        if served in self._served:
            del self._served[served]
        self._unserved = {one: None for one in self._unserved if one.serving.busy}
        if served.serving.busy:
            self._unserved[served] = None

    async def kv(self, bucket: str) -> KeyValue:
        place = Place(bucket, self._scope)
        await wait_for_stream(self.connection, place)
        return NatsKeyValue(self.connection, place)

    async def append(self, subject: str, body: msgspec.Struct, message_id: str) -> None:
        data = encode_envelope(body, 0, current_traceparent())
        await jetstream.append(self.connection, subject, data, {jetstream.MESSAGE_ID: message_id})

    async def follow(
        self, stream: str, body_type: type[T] | UnionType, on_record: Callable[[T, int], None]
    ) -> Subscription:
        def on_stored(record: Record) -> None:
            try:
                body = decode_envelope(record.data, body_type).body
            except SwarmbridgeError:
                self.counts.undecodable += 1
                log.warning("undecodable record, %d so far", self.counts.undecodable)
                return
            on_record(body, record.stored_ms)

        reader = OrderedReader(self.connection, Place(stream, self._scope), on_stored)
        await reader.start()
        return reader

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.connection.on_renewed(callback)

    def on_lost(self, callback: Callable[[str], None]) -> None:
        self.connection.on_lost = callback

    def on_crash(self, callback: Callable[[str], None]) -> None:
        self.connection.on_crash = callback

    async def close(self) -> None:
        served = [*self._served, *self._unserved]
        # Interest first, of all: then no handler is started any more, and those in flight can be waited for.
        await asyncio.gather(*(one.interest.close() for one in served))
        await asyncio.gather(*(one.serving.finish() for one in served))
        try:
            await self.connection.flush()  # their replies
        except BusError as error:
            log.debug("closing: %s", error.cause)
        await self.connection.close()
