"""JetStream over a NatsConnection, in its JSON API's own words: acknowledged publishes and ordered reading.

Not nats-py's JetStream classes: their watch stays deaf for 16-19 s after a server restart and `create` fails on
some expired keys (docs/nats.md). What we use of the API is small, and each subject we use is in `permissions`.
Source: NATS ADR-1 (JSON API), ADR-15 (subjects), ADR-17 (ordered consumer), ADR-8 (KV).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.backoff import delays_s
from shared.bus.nats.connection import Interest, NatsConnection, header
from shared.clock import monotonic
from shared.errors import BusError, BusTimeout, BusUnavailable, Cause, NoResponders
from shared.tasks.ending import end_tasks

API_TIMEOUT_S = 5.0
HEARTBEAT_S = 2.0
"""Idle heartbeat of a consumer. One is made again after SILENT_S without a sign: its server may be gone."""

SILENT_S = 5.0
CATCH_UP_TIMEOUT_S = 30.0
"""How long reading what is stored may take: 100,000 records are a few seconds."""

INACTIVE_S = 30.0
"""When the server forgets a consumer that nobody listens to any more."""

REOPEN_FIRST_S = 0.05
REOPEN_CAP_S = 2.0

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""err_code of a failed compare-and-set (server's JSStreamWrongLastSequence…)."""

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"

log = logging.getLogger(__name__)


class JetStreamError(BusError):
    """The JetStream API refused. err_code: the server's own number."""

    def __init__(self, code: int, err_code: int) -> None:
        super().__init__(Cause.OTHER, f"jetstream error {err_code}")
        self.code = code
        self.err_code = err_code


@dataclass(frozen=True, slots=True)
class Record:
    """One stored message. sequence: its place in the stream, from 1. pending: how many follow it by now."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None
    sequence: int
    stored_ms: int
    pending: int


async def api(connection: NatsConnection, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    """One call of `$JS.API.<subject>`.

    Raises: JetStreamError; BusTimeout (a denied call too); BusUnavailable also where there is no JetStream.
    """
    try:
        message = await connection.request(f"$JS.API.{subject}", json.dumps(request).encode(), API_TIMEOUT_S)
    except NoResponders:
        raise BusUnavailable("no JetStream here") from None
    return _checked(message.data)


async def append(
    connection: NatsConnection, subject: str, data: bytes, headers: Mapping[str, str] | None = None
) -> int:
    """Publish into the stream that holds `subject` and wait until it is stored. Returns: its sequence.

    Raises: as `api`; JetStreamError with an err_code of WRONG_LAST_SEQUENCE where EXPECTED_LAST did not fit.
    """
    try:
        message = await connection.request(subject, data, API_TIMEOUT_S, headers)
    except NoResponders:
        raise BusUnavailable("no stream holds this subject") from None
    return int(_checked(message.data)["seq"])


def _checked(data: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(data)
    error = answer.get("error")
    if error is None:
        return answer
    raise JetStreamError(int(error.get("code", 0)), int(error.get("err_code", 0)))


class OrderedReader:
    """Reads a stream in order through an ephemeral push consumer.

    The consumer is made again after a reconnect, a gap and silence. Where it then starts: behind the last record
    seen, or, with `last_per_subject`, at the last record of every subject (the reader of those drops what it
    knows). A stream that was made anew meanwhile is read from its start.

    Back-pressure: JetStream's flow control; `on_record` is synchronous.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: str,
        on_record: Callable[[Record], None],
        *,
        last_per_subject: bool = False,
        headers_only: bool = False,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._on_record = on_record
        self._last_per_subject = last_per_subject
        self._headers_only = headers_only
        self._last_sequence = 0
        self._created = ""
        self._next_delivery = 1
        self._heard_s = 0.0
        self._interest: Interest | None = None
        self._broken = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._forget_renewed: Callable[[], None] = lambda: None
        self._keeper: asyncio.Task[None] | None = None
        self._sends: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Return when everything stored has been handed to `on_record`.

        Raises: BusError where the stream cannot be read; BusTimeout where that takes over CATCH_UP_TIMEOUT_S.
        """
        await self._open()
        self._connection.own(self)
        self._forget_renewed = self._connection.on_renewed(self._broken.set)
        self._keeper = asyncio.create_task(self._keep(), name="reader")
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                await self._caught_up.wait()
        except TimeoutError:
            await self.close()
            raise BusTimeout("reading what is stored takes too long") from None

    async def close(self) -> None:
        self._connection.disown(self)
        self._forget_renewed()
        await end_tasks([self._keeper, *self._sends])
        if self._interest is not None:
            await self._interest.close()

    async def _keep(self) -> None:
        while True:
            await self._until_broken()
            for delay_s in delays_s(REOPEN_FIRST_S, REOPEN_CAP_S):
                try:
                    await self._open()
                    break
                except BusError as error:
                    log.debug("reading %s again: %s", self._stream, error.cause)
                    await asyncio.sleep(delay_s)

    async def _until_broken(self) -> None:
        while not self._broken.is_set() and monotonic() - self._heard_s < SILENT_S:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._broken.wait()
            except TimeoutError:
                continue

    async def _open(self) -> None:
        old, self._interest = self._interest, None
        if old is not None:
            await old.close()
        self._broken.clear()
        self._next_delivery = 1
        self._heard_s = monotonic()
        await self._check_stream()
        inbox = self._connection.new_inbox()

        def on_message(subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
            if self._interest is interest or self._interest is None:
                self._receive(subject, data, reply, headers)

        interest = await self._connection.subscribe(inbox, on_message)
        try:
            answer = await api(
                self._connection,
                f"CONSUMER.CREATE.{self._stream}",
                {"stream_name": self._stream, "config": self._consumer(inbox)},
            )
        except BusError:
            await interest.close()
            raise
        self._interest = interest
        if answer.get("num_pending", 0) == 0:
            self._caught_up.set()

    async def _check_stream(self) -> None:
        """See whether what we have read is still what is stored: a new stream counts from 1 again, and a server
        that was killed may have lost its last records, whose numbers then come again."""
        info = await api(self._connection, f"STREAM.INFO.{self._stream}", {})
        created, last_sequence = str(info["created"]), int(info["state"]["last_seq"])
        if self._created and created != self._created:
            log.warning("stream %s was made anew: reading it from its start", self._stream)
            self._last_sequence = 0
        self._created = created
        self._last_sequence = min(self._last_sequence, last_sequence)

    def _consumer(self, inbox: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "deliver_subject": inbox,
            "deliver_policy": "all",
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            "inactive_threshold": int(INACTIVE_S * 1e9),
            "headers_only": self._headers_only,
            "num_replicas": 1,
            "mem_storage": True,
        }
        if self._last_per_subject:
            config |= {"deliver_policy": "last_per_subject", "filter_subject": ">"}
        elif self._last_sequence:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last_sequence + 1}
        return config

    def _receive(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        self._heard_s = monotonic()
        if header(headers, "Status") == "100":
            self._receive_control(reply, headers)
            return
        try:
            delivery, sequence, stored_ms, pending = _position(reply)
        except (ValueError, IndexError):
            log.error("a record of %s without its place in the stream", self._stream)
            return
        if delivery != self._next_delivery:
            self._broken.set()
            return
        self._next_delivery += 1
        if self._last_per_subject or sequence > self._last_sequence:
            self._last_sequence = sequence
            try:
                self._on_record(Record(subject, data, headers, sequence, stored_ms, pending))
            except Exception as error:
                log.error("a reader of %s raised %s", self._stream, type(error).__name__)
        if pending == 0:
            self._caught_up.set()

    def _receive_control(self, reply: str, headers: Mapping[str, str] | None) -> None:
        """Flow control asks for an answer; a heartbeat tells how much was sent, so that a gap at the end shows."""
        answer_to = reply or header(headers, "Nats-Consumer-Stalled")
        if answer_to:
            task = asyncio.get_running_loop().create_task(self._answer(answer_to))
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)
        last_delivery = header(headers, "Nats-Last-Consumer")
        if last_delivery and int(last_delivery) != self._next_delivery - 1:
            self._broken.set()

    async def _answer(self, subject: str) -> None:
        try:
            await self._connection.publish(subject, b"")
        except BusError as error:
            log.debug("flow control: %s", error.cause)


def _position(reply: str) -> tuple[int, int, int, int]:
    """(consumer's delivery count, stream sequence, stored at in ms, pending) from a record's reply subject.

    Layout: $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<stream seq>.<delivery>.<ns>.<pending>[.<any>]
    Source: NATS ADR-15.
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        raise ValueError("no acknowledgement subject")
    first = 5 if len(tokens) == 9 else 7
    sequence, delivery, stored_ns, pending = (int(token) for token in tokens[first : first + 4])
    return delivery, sequence, stored_ns // 1_000_000, pending
