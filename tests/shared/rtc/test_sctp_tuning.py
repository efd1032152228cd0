"""The tuned SCTP says the same as stock aiortc, and holds what stock leaves open."""

from __future__ import annotations

import os
from typing import Any

import aioice.ice
import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
    InboundStream,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause
from shared.rtc import sctp_tuning
from shared.rtc.contract import LinkSettings
from shared.rtc.sctp_tuning import TunedInboundStream
from tests.fakes.waiting import until
from tests.shared.rtc.pair import End, close, connect

FIRST_TSN = 2**32 - 20
"""So that TSNs wrap around in the test."""


def fragments(sizes: list[int], unordered: bool) -> list[DataChunk]:
    """Messages of so many fragments each, as chunks in sending order."""
    chunks: list[DataChunk] = []
    for sequence, size in enumerate(sizes):
        for part in range(size):
            chunk = DataChunk()
            chunk.flags = SCTP_DATA_UNORDERED if unordered else 0
            chunk.flags |= SCTP_DATA_FIRST_FRAG if part == 0 else 0
            chunk.flags |= SCTP_DATA_LAST_FRAG if part == size - 1 else 0
            chunk.tsn = (FIRST_TSN + len(chunks)) % 2**32
            chunk.stream_id, chunk.stream_seq, chunk.protocol = 0, sequence, 53
            chunk.user_data = bytes([len(chunks) % 256])
            chunks.append(chunk)
    return chunks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=8), st.booleans(), st.randoms(use_true_random=False))
def test_any_order_of_fragments_gives_what_stock_gives_at_the_same_time(
    sizes: list[int], unordered: bool, random: Any
) -> None:
    chunks = fragments(sizes, unordered)
    # Mostly in order, as on a path with some loss: move a few of them.
    for _ in range(random.randint(0, 3)):
        if chunks:
            chunks.insert(random.randrange(len(chunks)), chunks.pop(random.randrange(len(chunks))))
    stock, tuned = InboundStream(), TunedInboundStream()
    for chunk in chunks:
        stock.add_chunk(chunk)
        tuned.add_chunk(chunk)
        assert list(tuned.pop_messages()) == list(stock.pop_messages())
    assert tuned.reassembly == stock.reassembly


async def test_a_lossy_path_delivers_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)
    send_data = aioice.ice.StunProtocol.send_data
    sent = 0

    async def lossy(self: aioice.ice.StunProtocol, data: bytes, addr: tuple[str, int]) -> None:
        nonlocal sent
        sent += 1
        if sent % 50:  # 2 %, data and SACKs alike
            await send_data(self, data, addr)

    monkeypatch.setattr(aioice.ice.StunProtocol, "send_data", lossy)
    records = [os.urandom(60_000) for _ in range(12)]
    for record in records:
        await dialer.link.send(record)
    await until(lambda: len(listener.messages) == len(records), timeout_s=20)
    assert listener.messages == records
    monkeypatch.undo()
    await close(dialer, listener)


async def test_fragments_without_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sctp_tuning, "MAX_REASSEMBLY_BYTES", 100_000)
    dialer, listener = End(LinkSettings("127.0.0.1", max_message_bytes=262_144)), End()
    await connect(dialer, listener)
    await dialer.link.send(bytes(200_000))
    await until(lambda: listener.closed and dialer.closed)
    assert listener.closed == [Cause.CLOSED]
    assert listener.messages == []
    await close(dialer, listener)
