"""JetStream over a NatsConnection, in its JSON API's own words: acknowledged publishes and direct gets.

Not nats-py's JetStream classes: their watch stays deaf for 16-19 s after a server restart, `create` fails on some
expired keys (docs/nats.md), and they read through consumers, which no service may have (`permissions`).
Source: NATS ADR-1 (JSON API), ADR-31 (direct and batched gets), ADR-8 (KV).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.bus.nats.connection import Answer, NatsConnection, header
from shared.errors import BusError, BusUnavailable, Cause, NoResponders

API_TIMEOUT_S = 5.0
BATCH_RECORDS = 256
BATCH_BYTES = 2**20
"""One batched get: bounds what waits in this process. The server ends a batch at whichever comes first."""

NOT_FOUND = "404"
END_OF_BATCH = "204"

NO_JETSTREAM = frozenset({10039, 10076})
"""err_code: JetStream is not enabled for the account, or not at all."""

NO_ROOM = frozenset({10002, 10023, 10028, 10047, 10077})
"""err_code: resources exceeded, of the account, the server or the stream: the bytes are not to be had."""

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""err_code of a failed compare-and-set (server's JSStreamWrongLastSequence…)."""

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"


class JetStreamError(BusError):
    """The JetStream API refused. err_code: the server's own number. Its text is for whoever starts a node."""

    def __init__(self, code: int, err_code: int) -> None:
        cause, text = Cause.OTHER, f"JetStream refuses with its error {err_code}"
        if err_code in NO_JETSTREAM:
            cause, text = (
                Cause.MISCONFIGURED,
                "it has no JetStream for our account; allow it there",
            )
        elif err_code in NO_ROOM:
            cause, text = (
                Cause.STORE_FULL,
                "it has no room for our streams; free disk space, or raise its limits",
            )
        super().__init__(cause, text)
        self.code = code
        self.err_code = err_code


class StreamGone(BusUnavailable):
    """Nothing stores this: the stream is gone, or not made yet. The keeper makes it (again)."""

    def __init__(self) -> None:
        super().__init__("the bus has no such bucket or stream")


@dataclass(frozen=True, slots=True)
class Record:
    """One stored message. sequence: its place in the stream, from 1. stored_ns: when, by the server's clock."""

    subject: str
    data: bytes
    headers: Mapping[str, str] | None
    sequence: int
    stored_ns: int

    @property
    def stored_ms(self) -> int:
        return self.stored_ns // 1_000_000


async def api(connection: NatsConnection, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    """One call of `$JS.API.<subject>`.

    Raises: JetStreamError; BusTimeout (a denied call too); BusUnavailable; BusError(MISCONFIGURED): no JetStream.
    """
    try:
        message = await connection.request(f"$JS.API.{subject}", json.dumps(request).encode(), API_TIMEOUT_S)
    except NoResponders:
        raise BusError(Cause.MISCONFIGURED, "it has no JetStream; start it with -js") from None
    return _checked(message.data)


async def append(
    connection: NatsConnection, subject: str, data: bytes, headers: Mapping[str, str] | None = None
) -> int:
    """Publish into the stream that holds `subject` and wait until it is stored. Returns: its sequence.

    Raises: StreamGone; BusTimeout; BusUnavailable; JetStreamError with an err_code of WRONG_LAST_SEQUENCE where
        EXPECTED_LAST did not fit.
    """
    try:
        message = await connection.request(subject, data, API_TIMEOUT_S, headers)
    except NoResponders:
        raise StreamGone from None
    return int(_checked(message.data)["seq"])


def _checked(data: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(data)
    error = answer.get("error")
    if error is None:
        return answer
    raise JetStreamError(int(error.get("code", 0)), int(error.get("err_code", 0)))


async def get_last(connection: NatsConnection, stream: str, subject: str) -> Record | None:
    """The last record of a subject, straight from the stream; None where there is none.

    Raises: StreamGone; BusTimeout; BusUnavailable; JetStreamError.
    """
    return await _get(connection, f"{stream}.{subject}", b"")


async def get_at(connection: NatsConnection, stream: str, sequence: int) -> Record | None:
    """The record at a place of the stream; None where there is none, or no longer. Raises: as `get_last`."""
    return await _get(connection, stream, json.dumps({"seq": sequence}).encode())


async def _get(connection: NatsConnection, what: str, query: bytes) -> Record | None:
    try:
        answer = await connection.request(f"$JS.API.DIRECT.GET.{what}", query, API_TIMEOUT_S)
    except NoResponders:
        raise StreamGone from None
    if answer.status == NOT_FOUND:
        return None
    if answer.status:
        raise JetStreamError(int(answer.status), 0)
    return _record(answer)


async def read_after(connection: NatsConnection, stream: str, sequence: int) -> tuple[list[Record], bool]:
    """The records after `sequence`, in order, up to one batch. Returns: them, and whether there are more.

    Raises: as `get_last`.
    """
    query = {"seq": sequence + 1, "batch": BATCH_RECORDS, "max_bytes": BATCH_BYTES}
    subject = f"$JS.API.DIRECT.GET.{stream}"
    records: list[Record] = []
    try:
        async with aclosing(connection.request_many(subject, json.dumps(query).encode(), API_TIMEOUT_S)) as answers:
            async for answer in answers:
                match answer.status:
                    case "":
                        records.append(_record(answer))
                    case status if status == NOT_FOUND:
                        return records, False
                    # The server ends each batch with an empty message that says how many are left behind it.
                    case status if status == END_OF_BATCH:
                        return records, header(answer.headers, "Nats-Num-Pending") not in ("", "0")
                    case status:
                        raise JetStreamError(int(status), 0)
    except NoResponders:
        raise StreamGone from None
    raise AssertionError("answers never end")


def _record(answer: Answer) -> Record:
    """A stored message from a direct get; its place and time are in headers (ADR-31)."""
    headers = answer.headers
    return Record(
        header(headers, "Nats-Subject"),
        answer.data,
        headers,
        int(header(headers, "Nats-Sequence")),
        _nanoseconds(header(headers, "Nats-Time-Stamp")),
    )


def _nanoseconds(stamp: str) -> int:
    """RFC 3339 as the server writes it (UTC, up to nine digits of a second) in ns of the wall clock."""
    whole, _, rest = stamp.rstrip("Zz").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(rest[:9].ljust(9, "0"))
