from __future__ import annotations

import pytest

from shared.content.messages import MAX_BODY_BYTES, ManifestData
from shared.errors import Cause, SwarmbridgeError
from shared.speech.gathering import Gathering

ONE, TWO = b"1" * 16, b"2" * 16
ANSWER = ManifestData("m")


def test_a_body_comes_out_whole_and_its_room_is_kept_until_it_is_sent() -> None:
    gathering = Gathering(10)
    gathering.begin(ONE, ANSWER, 6)
    with pytest.raises(SwarmbridgeError) as refusal:
        gathering.begin(TWO, ANSWER, 6)
    assert refusal.value.cause is Cause.BUSY
    assert gathering.take(ONE, memoryview(b"abc")) is None
    assert gathering.take(ONE, memoryview(b"def")) == (ANSWER, b"abcdef")
    assert gathering.reserved_bytes == 6
    gathering.release(6)
    gathering.begin(TWO, ANSWER, 6)
    gathering.drop(TWO)
    gathering.drop(TWO)
    assert gathering.reserved_bytes == 0
    assert gathering.take(TWO, memoryview(b"late")) is None


def test_no_body_is_longer_than_any_may_be() -> None:
    with pytest.raises(SwarmbridgeError) as refusal:
        Gathering().begin(ONE, ANSWER, MAX_BODY_BYTES + 1)
    assert refusal.value.cause is Cause.TOO_LARGE
