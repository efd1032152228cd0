"""Records come out in order whatever order they came in, and what cannot be right is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.broadcast.limits import MAX_RECORD_BYTES, WINDOW_RECORDS
from services.broadcast.ordering import InOrder
from shared.errors import Cause, RemoteProtocolError


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=8), max_size=40), st.randoms())
def test_any_order_within_the_window(records: list[bytes], random: object) -> None:
    arriving, sent = InOrder(), 0
    got: list[bytes] = []
    on_the_way: list[int] = []
    while len(got) < len(records):
        while sent < len(records) and sent < len(got) + WINDOW_RECORDS:
            on_the_way.append(sent)
            sent += 1
        number = random.choice(on_the_way)  # type: ignore[attr-defined]
        on_the_way.remove(number)
        got += arriving.receive(number, records[number])
    assert got == records


@pytest.mark.parametrize("number", [-1, WINDOW_RECORDS, 10**9])
def test_numbers_out_of_the_window(number: int) -> None:
    with pytest.raises(RemoteProtocolError):
        InOrder().receive(number, b"")


def test_a_number_twice() -> None:
    arriving = InOrder()
    assert arriving.receive(1, b"b") == []
    with pytest.raises(RemoteProtocolError):
        arriving.receive(1, b"b")
    assert arriving.receive(0, b"a") == [b"a", b"b"]
    with pytest.raises(RemoteProtocolError):
        arriving.receive(0, b"a")


def test_sizes() -> None:
    arriving, largest = InOrder(), bytes(MAX_RECORD_BYTES)
    with pytest.raises(RemoteProtocolError) as error:
        arriving.receive(0, largest + b"x")
    assert error.value.cause is Cause.TOO_LARGE
    assert arriving.receive(1, largest) == []
    assert arriving.receive(2, largest) == []
    with pytest.raises(RemoteProtocolError) as error:
        arriving.receive(3, largest)
    assert error.value.cause is Cause.TOO_LARGE
    assert arriving.receive(0, largest) == [largest] * 3
