"""What JetStream holds for a node: four KV buckets and the attempts stream, made once by an `admin` user.

Services only open them, and wait a while for a layout that is still being made. Making it again changes what
differs and nothing else.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shared.backoff import delays_s
from shared.bus.messages.subjects import (
    BUCKET_BLOCKLIST,
    BUCKET_FLAGS,
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_ATTEMPTS,
)
from shared.bus.nats.connection import NatsConnection
from shared.bus.nats.jetstream import JetStreamError, api
from shared.clock import monotonic
from shared.errors import BusError, BusTimeout

MAX_ATTEMPTS = 100_000
MAX_ATTEMPTS_BYTES = 64 * 2**20
"""Older attempts are dropped: counters derive from those that are stored."""

DEDUPE_WINDOW_S = 120.0
"""How long the same `Nats-Msg-Id` is stored once: far longer than a delivery may last."""

MAX_VALUE_BYTES = {
    BUCKET_FLAGS: 4096,
    BUCKET_BLOCKLIST: 4096,
    BUCKET_LEASES: 4096,
    BUCKET_MANIFESTS: 64 * 1024,
}
MAX_BUCKET_BYTES = {
    BUCKET_FLAGS: 2**20,
    BUCKET_BLOCKLIST: 8 * 2**20,
    BUCKET_LEASES: 4 * 2**20,
    BUCKET_MANIFESTS: 256 * 2**20,
}

WAIT_FOR_LAYOUT_S = 10.0
POLL_FIRST_S = 0.02
POLL_CAP_S = 0.5

NAME_IN_USE = 10058
"""err_code: a stream of that name has another configuration."""

STREAM_NOT_FOUND = 10059


def scoped_name(name: str, scope: str) -> str:
    """What a bucket or stream is called in an account that several nodes share; scope "" = the account is ours."""
    return f"{name}_{scope}" if scope else name


async def ensure_layout(connection: NatsConnection, node: str, scope: str = "") -> None:
    """Make the layout of a node, or bring it up to date. Needs the `admin` user's permissions.

    Raises: JetStreamError where the server refuses (no room, say); BusUnavailable; BusTimeout.
    """
    for config in streams(node, scope):
        try:
            await api(connection, f"STREAM.CREATE.{config['name']}", config)
        except JetStreamError as error:
            if error.err_code != NAME_IN_USE:
                raise
            await api(connection, f"STREAM.UPDATE.{config['name']}", config)


async def remove_layout(connection: NatsConnection, node: str, scope: str) -> None:
    """Remove the layout and all that it holds; what is not there is no error. Raises: as ensure_layout."""
    for config in streams(node, scope):
        try:
            await api(connection, f"STREAM.DELETE.{config['name']}", {})
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise


async def wait_for_stream(connection: NatsConnection, stream: str, timeout_s: float = WAIT_FOR_LAYOUT_S) -> None:
    """Return when the stream is there. Raises: BusTimeout; BusError where it cannot be asked for."""
    deadline_s = monotonic() + timeout_s
    for delay_s in delays_s(POLL_FIRST_S, POLL_CAP_S):
        try:
            await api(connection, f"STREAM.INFO.{stream}", {})
            return
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            failure: BusError = error
        except BusError as error:
            failure = error
        if monotonic() + delay_s >= deadline_s:
            raise BusTimeout("the bus has no such bucket or stream") from failure
        await asyncio.sleep(delay_s)


def streams(node: str, scope: str = "") -> list[dict[str, Any]]:
    """The configuration of every stream of a node, in the words of JetStream's API."""
    buckets = [_bucket(bucket, scope) for bucket in MAX_BUCKET_BYTES]
    return [*buckets, _attempts(node, scope)]


def _bucket(bucket: str, scope: str) -> dict[str, Any]:
    """A KV bucket of one value a key (ADR-8). TTL a key is allowed; expiry leaves no marker (docs/nats.md)."""
    return {
        "name": f"KV_{scoped_name(bucket, scope)}",
        "subjects": [f"$KV.{scoped_name(bucket, scope)}.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msg_size": MAX_VALUE_BYTES[bucket],
        "max_bytes": MAX_BUCKET_BYTES[bucket],
        "max_msgs": -1,
        "max_consumers": -1,
        "max_age": 0,
        "num_replicas": 1,
        "duplicate_window": int(DEDUPE_WINDOW_S * 1e9),
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


def _attempts(node: str, scope: str) -> dict[str, Any]:
    return {
        "name": scoped_name(STREAM_ATTEMPTS, scope),
        "subjects": [f"sb.{node}.attempt.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs": MAX_ATTEMPTS,
        "max_bytes": MAX_ATTEMPTS_BYTES,
        "max_consumers": -1,
        "max_age": 0,
        "num_replicas": 1,
        "duplicate_window": int(DEDUPE_WINDOW_S * 1e9),
        "allow_direct": True,
    }
