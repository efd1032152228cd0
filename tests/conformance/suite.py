"""What every transport must do: one list of checks, run against all of them, and against broken ones that must fail.

A check gets a `Pair`: two ends with recorders, able to reach each other. It knows nothing of what is between.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import assert_never

import pytest

from shared.errors import Cause, TransportError
from shared.ids import LinkId
from shared.transport.contract import (
    LinkDown,
    LinkUp,
    PeerHint,
    RecordReceived,
    StateChanged,
    Transport,
    TransportEvent,
)

WAIT_S = 15.0
BULK_BYTES = 4 * 2**20
RECORD_BYTES = 65_535


class End:
    """A running transport and everything that it has said."""

    def __init__(self, transport: Transport, hint: PeerHint) -> None:
        self.transport = transport
        self.hint = hint
        self.ups: list[LinkUp] = []
        self.downs: list[LinkDown] = []
        self.records: dict[LinkId, list[bytes]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def receive(self, event: TransportEvent) -> None:
        match event:
            case LinkUp():
                self.ups.append(event)
            case LinkDown():
                self.downs.append(event)
            case RecordReceived():
                self.records.setdefault(event.link, []).append(bytes(event.record))
            case StateChanged():
                pass  # how a transport feels is no matter of its links
            case _:
                assert_never(event)
        self._changed.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self.transport.run(self.receive))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def until(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"waited {timeout_s} s in vain until {what}")


class Pair:
    """Two running ends. `near` dials `far`."""

    def __init__(self, near: End, far: End) -> None:
        self.near, self.far = near, far

    async def link(self) -> tuple[LinkUp, LinkUp]:
        """Dial and wait until both ends are up. Returns: the near and the remote's LinkUp."""
        near_count, far_count = len(self.near.ups), len(self.far.ups)
        async with asyncio.timeout(WAIT_S):
            while True:  # the remote peer may still be finding its place in the swarm
                try:
                    await self.near.transport.dial(self.far.hint, WAIT_S)
                    break
                except TransportError:
                    await asyncio.sleep(0.1)
        await self.near.until(lambda: len(self.near.ups) > near_count, "the near end is up")
        await self.far.until(lambda: len(self.far.ups) > far_count, "the remote peer is up")
        return self.near.ups[-1], self.far.ups[-1]


Check = Callable[[Pair], Awaitable[None]]


def _pattern(count: int, seed: int) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(count)


async def promises_what_a_seal_needs(pair: Pair) -> None:
    capabilities = pair.near.transport.capabilities
    assert capabilities.max_record_bytes >= RECORD_BYTES
    assert capabilities.ordered
    assert capabilities.reliable


async def both_ends_agree_on_the_link(pair: Pair) -> None:
    near, far = await pair.link()
    assert near.dialer != far.dialer
    assert near.binding == far.binding
    assert len(near.binding) >= 32
    assert near.expected_key in (None, pair.far.hint.key)


async def every_link_has_a_binding_of_its_own(pair: Pair) -> None:
    first, far_first = await pair.link()
    await pair.near.transport.close(first.link, Cause.CLOSED)
    await pair.far.until(lambda: any(down.link == far_first.link for down in pair.far.downs), "the remote peer is down")
    await pair.far.stop()
    await pair.near.stop()
    await pair.far.start()
    await pair.near.start()
    second, _ = await pair.link()
    assert first.binding != second.binding


async def records_arrive_whole_and_in_order(pair: Pair) -> None:
    near, far = await pair.link()
    sizes = [1, 2, 125, 126, 1199, 1200, 16_300, 16_301, 16_384, 65_000, RECORD_BYTES, 3]
    sent = [_pattern(size, seed) for seed, size in enumerate(sizes)]
    for record in sent:
        await pair.near.transport.send(near.link, record)
    for record in reversed(sent):
        await pair.far.transport.send(far.link, record)
    await pair.far.until(lambda: len(pair.far.records.get(far.link, ())) >= len(sent), "all records are there")
    await pair.near.until(lambda: len(pair.near.records.get(near.link, ())) >= len(sent), "all records are back")
    assert pair.far.records[far.link] == sent
    assert pair.near.records[near.link] == list(reversed(sent))


async def bulk_arrives_without_loss(pair: Pair) -> None:
    near, far = await pair.link()
    record = _pattern(RECORD_BYTES, 7)
    count = BULK_BYTES // RECORD_BYTES
    for number in range(count):
        await pair.near.transport.send(near.link, number.to_bytes(4, "big") + record[4:])
    await pair.far.until(lambda: len(pair.far.records.get(far.link, ())) >= count, "the bulk is there", 60.0)
    numbers = [int.from_bytes(data[:4], "big") for data in pair.far.records[far.link]]
    assert numbers == list(range(count))


async def refuses_a_record_that_is_too_long(pair: Pair) -> None:
    near, _ = await pair.link()
    with pytest.raises(TransportError) as refusal:
        await pair.near.transport.send(near.link, bytes(pair.near.transport.capabilities.max_record_bytes + 1))
    assert refusal.value.cause is Cause.TOO_LARGE


async def refuses_to_send_where_nobody_is(pair: Pair) -> None:
    with pytest.raises(TransportError) as refusal:
        await pair.near.transport.send(LinkId("0000000000000000"), b"to nobody")
    assert refusal.value.cause is Cause.CLOSED


async def a_closed_link_takes_nothing(pair: Pair) -> None:
    near, far = await pair.link()
    await pair.near.transport.close(near.link, Cause.REFUSED)
    await pair.near.until(lambda: any(down.link == near.link for down in pair.near.downs), "our end is down")
    await pair.far.until(lambda: any(down.link == far.link for down in pair.far.downs), "the remote peer is down")
    for end, link in ((pair.near, near.link), (pair.far, far.link)):
        with pytest.raises(TransportError) as refusal:
            await end.transport.send(link, b"too late")
        assert refusal.value.cause is Cause.CLOSED


async def a_link_goes_down_once_with_our_cause(pair: Pair) -> None:
    near, far = await pair.link()
    await pair.near.transport.close(near.link, Cause.REFUSED)
    await pair.near.transport.close(near.link, Cause.OTHER)
    await pair.far.until(lambda: any(down.link == far.link for down in pair.far.downs), "the remote peer is down")
    await pair.far.transport.close(far.link, Cause.OTHER)
    await pair.near.stop()
    await pair.far.stop()
    assert [down.cause for down in pair.near.downs if down.link == near.link] == [Cause.REFUSED]
    assert len([down for down in pair.far.downs if down.link == far.link]) == 1


async def an_absent_peer_is_never_a_success(pair: Pair) -> None:
    absent = PeerHint(bytes(range(32)), "peer-00112233445566ff")
    before = [up for up in pair.near.ups if up.expected_key == absent.key]
    with suppress(TransportError):
        await pair.near.transport.dial(absent, 1.0)
    assert [up for up in pair.near.ups if up.expected_key == absent.key] == before == []


async def stopping_closes_every_link_and_it_runs_again(pair: Pair) -> None:
    near, far = await pair.link()
    await pair.near.stop()
    assert [down.link for down in pair.near.downs] == [near.link]
    await pair.far.until(lambda: any(down.link == far.link for down in pair.far.downs), "the remote peer noticed")
    await pair.near.start()
    again, far_again = await pair.link()
    await pair.near.transport.send(again.link, b"again")
    await pair.far.until(lambda: bool(pair.far.records.get(far_again.link)), "the record is there")


CHECKS: list[Check] = [
    promises_what_a_seal_needs,
    both_ends_agree_on_the_link,
    every_link_has_a_binding_of_its_own,
    records_arrive_whole_and_in_order,
    bulk_arrives_without_loss,
    refuses_a_record_that_is_too_long,
    refuses_to_send_where_nobody_is,
    a_closed_link_takes_nothing,
    a_link_goes_down_once_with_our_cause,
    an_absent_peer_is_never_a_success,
    stopping_closes_every_link_and_it_runs_again,
]
