"""Questions to STUN and TURN servers, byte for byte, and what counts as an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire.stun import ALLOCATE, BINDING, encode_request, is_answer

ID = bytes(range(12))


def test_requests_are_those_of_the_rfcs() -> None:
    assert encode_request(BINDING, ID) == bytes.fromhex("000100002112a442") + ID
    assert encode_request(ALLOCATE, ID) == bytes.fromhex("000300082112a442") + ID + bytes.fromhex("0019000411000000")


@pytest.mark.parametrize(
    ("head", "method", "answers"),
    [
        ("01010000", BINDING, True),
        ("01110000", BINDING, True),
        ("01130000", ALLOCATE, True),
        ("01010000", ALLOCATE, False),
        ("00010000", BINDING, False),
    ],
)
def test_success_and_refusal_are_answers_to_their_request_alone(head: str, method: int, answers: bool) -> None:
    answer = bytes.fromhex(head + "2112a442") + ID
    assert is_answer(answer, method, ID) is answers
    assert not is_answer(answer, method, bytes(12))
    assert not is_answer(answer[:19], method, ID)


@given(st.binary(max_size=64))
def test_anything_may_come(data: bytes) -> None:
    is_answer(data, BINDING, ID)
