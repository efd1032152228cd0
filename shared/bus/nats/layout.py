"""What JetStream holds for a node: five KV buckets and the hops stream, made and kept by the `keeper`.

Services only use them, and wait a while for a layout that is still being made. Making it again changes what
differs and nothing else. The bucket `layout` says for each when it was made: by that a reader knows that its stream
was lost and made again, whoever made it and whatever it holds by now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from shared.backoff import delays_s
from shared.bus.messages.subjects import (
    BUCKET_BLOCKLIST,
    BUCKET_FLAGS,
    BUCKET_LAYOUT,
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_HOPS,
    Subjects,
    stored,
)
from shared.bus.nats.connection import NatsConnection
from shared.bus.nats.jetstream import JetStreamError, StreamGone, api, append, get_at, get_last
from shared.clock import monotonic
from shared.errors import BusError, Cause

MAX_HOPS = 100_000
MAX_HOPS_BYTES = 32 * 2**20
"""Older hops are dropped: counters derive from those that are stored. One is about 300 B with what NATS adds."""

DEDUPE_WINDOW_S = 120.0
"""How long the same `Nats-Msg-Id` is stored once: far longer than a delivery may last."""

MAX_VALUE_BYTES = {
    BUCKET_LAYOUT: 4096,
    BUCKET_FLAGS: 4096,
    BUCKET_BLOCKLIST: 4096,
    BUCKET_LEASES: 4096,
    BUCKET_MANIFESTS: 64 * 1024,
}
MAX_BUCKET_BYTES = {
    BUCKET_LAYOUT: 2**18,
    BUCKET_FLAGS: 2**18,
    BUCKET_BLOCKLIST: 4 * 2**20,
    BUCKET_LEASES: 2**18,
    BUCKET_MANIFESTS: 64 * 2**20,
}
"""NATS reserves these bytes when a stream is made, out of three quarters of what is free on its disk: 101 MiB with the
hops. 4,096 blocks with the longest notes are 3 MiB; a file's summary and alias are about 600 B, so that the index
holds 50,000 files and more."""

WAIT_FOR_LAYOUT_S = 10.0
POLL_FIRST_S = 0.02
POLL_CAP_S = 0.5

LAYOUT_SCHEMA = 1
"""Of what is stored in them: keys and records. It changes when an older version could not read what a newer one wrote,
or would spoil it; appended fields do not change it. 1: as version 0.1.0 writes them."""

SCHEMA_KEY = "schema"
"""In the bucket `layout`; no bucket or stream has that name."""

NAME_IN_USE = 10058
"""err_code: a stream of that name has another configuration."""

STREAM_NOT_FOUND = 10059


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket or stream as the account knows it. scope: the node's id where several nodes share the account."""

    name: str
    scope: str = ""

    @property
    def scoped(self) -> str:
        return f"{self.name}_{self.scope}" if self.scope else self.name

    @property
    def stream(self) -> str:
        return self.scoped if self.name == STREAM_HOPS else f"KV_{self.scoped}"

    @property
    def prefix(self) -> str:
        """What the subjects of a bucket's keys start with."""
        return f"$KV.{self.scoped}."

    @property
    def hints(self) -> str:
        return stored(self.scoped)


class NewerSchema(BusError):
    """What NATS holds was written by a version newer than this one, which must leave it alone."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            Cause.MISCONFIGURED,
            f"what it holds for this node was written by a newer version: its schema is {schema}, this one knows "
            f"{LAYOUT_SCHEMA}; run that version, or restore a backup made by this one",
        )


def refuse_newer(schema: bytes | None) -> None:
    """Args: schema: what stands under SCHEMA_KEY, None for nothing. Raises: NewerSchema."""
    if schema is None:
        return
    text = schema.decode("ascii", "replace")
    if not text.isdigit() or int(text) > LAYOUT_SCHEMA:
        raise NewerSchema(text[:16])


async def ensure_layout(connection: NatsConnection, node: str, scope: str = "") -> list[str]:
    """Make the layout of a node, or bring it up to date. Needs the keeper's permissions.

    A stream that is made has a new generation, which those who read it recognise it by (`generation`).
    Returns: the buckets and streams that were made; all of them at the first start.
    Raises: JetStreamError where the server refuses (no room, say); BusUnavailable; BusTimeout; BusError(MISCONFIGURED);
        NewerSchema, with nothing changed.
    """
    made: list[str] = []
    layout = Place(BUCKET_LAYOUT, scope)
    # Before anything is made or changed.
    await _refuse_newer_layout(connection, layout)
    for place, config in streams(node, scope):
        created = await _ensure_stream(connection, config)
        # By the time of its making: where a keeper dies between the two steps, the next one still says so. The
        # server's own `did_create` is no news: it says so of every stream that is as it was asked for.
        subject = layout.prefix + place.name
        known = await get_last(connection, layout.stream, subject)
        if known is None or known.data != created.encode():
            await append(connection, subject, created.encode())
            made.append(place.name)
        if place == layout:
            await _say_schema(connection, layout)
    return made


async def _refuse_newer_layout(connection: NatsConnection, layout: Place) -> None:
    try:
        known = await get_last(connection, layout.stream, layout.prefix + SCHEMA_KEY)
    except StreamGone:
        return
    refuse_newer(known.data if known is not None else None)


async def _say_schema(connection: NatsConnection, layout: Place) -> None:
    mine = str(LAYOUT_SCHEMA).encode()
    known = await get_last(connection, layout.stream, layout.prefix + SCHEMA_KEY)
    if known is None or known.data != mine:
        await append(connection, layout.prefix + SCHEMA_KEY, mine)


async def _ensure_stream(connection: NatsConnection, config: dict[str, Any]) -> str:
    """Returns: when the stream was made, in the server's own words."""
    try:
        answer = await api(connection, f"STREAM.CREATE.{config['name']}", config)
    except JetStreamError as error:
        if error.err_code != NAME_IN_USE:
            raise
        answer = await api(connection, f"STREAM.UPDATE.{config['name']}", config)
    return str(answer["created"])


async def generation(connection: NatsConnection, place: Place) -> bytes:
    """Which making of the bucket or stream this is; b"" where the keeper has not said so yet.

    Raises: StreamGone; BusError.
    """
    layout = Place(BUCKET_LAYOUT, place.scope)
    known = await get_last(connection, layout.stream, layout.prefix + place.name)
    return known.data if known is not None else b""


async def is_laid_out(connection: NatsConnection, node: str, scope: str = "") -> bool:
    """Whether every stream is there. Raises: BusError where that cannot be asked."""
    for place, _ in streams(node, scope):
        try:
            await api(connection, f"STREAM.INFO.{place.stream}", {})
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return False
            raise
    return True


async def remove_layout(connection: NatsConnection, node: str, scope: str) -> None:
    """Remove the layout and all that it holds; what is not there is no error. Raises: as ensure_layout."""
    for place, _ in streams(node, scope):
        try:
            await api(connection, f"STREAM.DELETE.{place.stream}", {})
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise


async def wait_for_stream(connection: NatsConnection, place: Place, timeout_s: float = WAIT_FOR_LAYOUT_S) -> None:
    """Return when the stream is there. Raises: StreamGone; BusError where it cannot be asked for."""
    deadline_s = monotonic() + timeout_s
    for delay_s in delays_s(POLL_FIRST_S, POLL_CAP_S):
        try:
            # A read, which every service may do; what stands there does not matter.
            await get_at(connection, place.stream, 1)
            return
        except BusError:
            if monotonic() + delay_s >= deadline_s:
                raise
        await asyncio.sleep(delay_s)


def streams(node: str, scope: str = "") -> list[tuple[Place, dict[str, Any]]]:
    """Every bucket and stream of a node, that of the generations first, in the words of JetStream's API."""
    buckets = [Place(bucket, scope) for bucket in MAX_BUCKET_BYTES]
    hops = Place(STREAM_HOPS, scope)
    return [*((place, _bucket(place)) for place in buckets), (hops, _hops(hops, node))]


def _bucket(place: Place) -> dict[str, Any]:
    """A KV bucket of one value a key (ADR-8). TTL a key is allowed; expiry leaves no marker (docs/nats.md)."""
    return {
        "name": place.stream,
        "subjects": [f"{place.prefix}>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msg_size": MAX_VALUE_BYTES[place.name],
        "max_bytes": MAX_BUCKET_BYTES[place.name],
        "max_msgs": -1,
        "max_consumers": -1,
        "max_age": 0,
        "num_replicas": 1,
        "duplicate_window": int(DEDUPE_WINDOW_S * 1e9),
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "republish": {"src": f"{place.prefix}>", "dest": place.hints, "headers_only": True},
    }


def _hops(place: Place, node: str) -> dict[str, Any]:
    subjects = Subjects(node).hop(">")
    return {
        "name": place.stream,
        "subjects": [subjects],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs": MAX_HOPS,
        "max_bytes": MAX_HOPS_BYTES,
        "max_consumers": -1,
        "max_age": 0,
        "num_replicas": 1,
        "duplicate_window": int(DEDUPE_WINDOW_S * 1e9),
        "allow_direct": True,
        "republish": {"src": subjects, "dest": place.hints, "headers_only": True},
    }
