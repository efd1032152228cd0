from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transfers.board import TransferBoard
from shared.bus.messages.envelopes import TransferUpdate
from shared.errors import Cause
from shared.gateway_api.structs import Transfer

CALL = bytes(16)


def _update(state: str = "running", done: int = 0, **changes: object) -> TransferUpdate:
    update = TransferUpdate(CALL, "get", state, "a.txt", done, 10, done * 100, 1000, {"webrtc": done * 100})
    return msgspec.structs.replace(update, **changes)


def test_progress_then_the_end() -> None:
    transfers = TransferBoard()
    begun = transfers.begin(CALL, "get", "", 0, 77)
    assert (begun.state, begun.started_at) == ("running", 77)
    assert transfers.apply(_update(done=3)) == transfers.get(CALL.hex())
    done = transfers.apply(_update("done", 10, manifest="ab"))
    assert done is not None
    assert (done.state, done.bytes_done, done.by_transport, done.manifest) == ("done", 1000, {"webrtc": 1000}, "ab")
    assert done.started_at == 77


def test_transfers_are_counted_by_the_instance_that_worked_on_them() -> None:
    transfers = TransferBoard()
    transfers.begin(CALL, "get", "", 0, 77)
    assert transfers.by_instance() == {}
    transfers.apply(_update(done=1, instance="chunk-1"))
    transfers.apply(_update("done", 10, instance="chunk-1"))
    transfers.apply(_update(call_id=b"\1" * 16, instance="chunk-2"))
    transfers.apply(_update(call_id=b"\2" * 16, instance="chunk-2"))
    assert transfers.by_instance() == {"chunk-1": 1, "chunk-2": 2}


def test_what_has_ended_stays_ended() -> None:
    transfers = TransferBoard()
    transfers.apply(_update("failed", cause=Cause.TIMEOUT))
    assert transfers.apply(_update("running", 5)) is None
    assert transfers.apply(_update("done", 10)) is None
    assert transfers.fail(CALL.hex(), Cause.CLOSED) is None
    failed = transfers.get(CALL.hex())
    assert failed is not None
    assert failed.cause == "timeout"


def test_the_event_may_come_before_the_calls_own_message_and_says_less() -> None:
    transfers = TransferBoard()
    transfers.apply(_update("done", 10))
    shown = transfers.apply(_update("done", 10, link="swarmbridge:ab#key", manifest="ab"))
    assert shown is not None
    assert (shown.link, shown.manifest) == ("swarmbridge:ab#key", "ab")
    assert transfers.apply(_update("done", 10)) is None


def test_the_same_twice_is_no_news() -> None:
    transfers = TransferBoard()
    assert transfers.apply(_update(done=1)) is not None
    assert transfers.apply(_update(done=1)) is None


def test_ended_ones_make_room_first() -> None:
    transfers = TransferBoard(capacity=3)
    for number in range(3):
        transfers.begin(bytes([number] * 16), "put", "x", 1, number)
    transfers.fail(bytes([1] * 16).hex(), Cause.CLOSED)
    transfers.begin(bytes([9] * 16), "put", "x", 1, 9)
    assert [transfer.started_at for transfer in transfers.newest_first()] == [9, 2, 0]
    transfers.begin(bytes([8] * 16), "put", "x", 1, 8)
    assert [transfer.started_at for transfer in transfers.newest_first()] == [9, 8, 2]


@given(st.lists(st.tuples(st.sampled_from(["running", "done", "failed"]), st.integers(0, 10)), max_size=20))
def test_numbers_never_go_back(steps: list[tuple[str, int]]) -> None:
    transfers = TransferBoard()
    last: Transfer | None = None
    for state, done in steps:
        transfers.apply(_update(state, done))
        now = transfers.get(CALL.hex())
        assert now is not None
        if last is not None:
            assert now.bytes_done >= last.bytes_done
            assert last.state in ("running", now.state)
        last = now
