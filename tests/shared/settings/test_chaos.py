"""Chaos flags as values: what is valid, where they may act, and how often they do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.settings.chaos import MAX_DELAY_MS, ChaosFlag, Fault, StoredChaos, chaos_allowed, decode_chaos
from shared.settings.config import NodeSettings

PEER = "peer-0123456789abcdef"


def rolls(*numbers: float) -> Callable[[], float]:
    given: Iterator[float] = iter(numbers)
    return lambda: next(given)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (ChaosFlag(), "must be set"),
        (ChaosFlag(percent=50), "must be set"),
        (ChaosFlag(drop=-1), "percentages"),
        (ChaosFlag(refuse=-1, drop=5), "percentages"),
        (ChaosFlag(drop=60, refuse=41), "percentages"),
        (ChaosFlag(delay_ms=-1), "delayMs"),
        (ChaosFlag(delay_ms=MAX_DELAY_MS + 1), "delayMs"),
        (ChaosFlag(drop=1, percent=0), "percent is"),
        (ChaosFlag(drop=1, percent=101), "percent is"),
        (ChaosFlag(drop=1, peer="192.0.2.1"), "peer is"),
        (ChaosFlag(drop=1, peer=PEER + "0"), "peer is"),
        (ChaosFlag(drop=1, peer=PEER), ""),
        (ChaosFlag(drop=60, refuse=40, delay_ms=MAX_DELAY_MS, percent=1), ""),
    ],
)
def test_what_is_wrong_is_said(flag: ChaosFlag, words: str) -> None:
    assert words in flag.problem
    assert bool(flag.problem) is bool(words)
    data = msgspec.json.encode(StoredChaos(flag, 5))
    if words:
        with pytest.raises(msgspec.DecodeError):
            decode_chaos(data)
    else:
        assert decode_chaos(data) == StoredChaos(flag, 5)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"chaos": {"explode": 5}}', b'{"chaos": {"drop": true}}', b"\xff"])
def test_what_is_no_flag_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_chaos(data)


def test_one_roll_decides_whether_the_next_decides_what() -> None:
    flag = ChaosFlag(drop=20, refuse=30, delay_ms=5, percent=50)
    assert flag.fault(PEER, rolls(0.5)) is None
    assert flag.fault(PEER, rolls(0.49, 0.29)) is Fault.REFUSE
    assert flag.fault(PEER, rolls(0.49, 0.3)) is Fault.DROP
    assert flag.fault(PEER, rolls(0.49, 0.5)) is Fault.DELAY
    assert ChaosFlag(drop=20).fault(PEER, rolls(0.0, 0.2)) is None


def test_another_peers_requests_are_left_alone_without_a_roll() -> None:
    assert ChaosFlag(drop=100, peer=PEER).fault("peer-fedcba9876543210", rolls()) is None
    assert ChaosFlag(drop=100, peer=PEER).fault(PEER, rolls(0.99, 0.99)) is Fault.DROP


@settings(max_examples=30, deadline=None)
@given(drop=st.integers(0, 50), refuse=st.integers(0, 50), percent=st.integers(1, 100), seed=st.integers())
def test_the_shares_are_as_asked_for(drop: int, refuse: int, percent: int, seed: int) -> None:
    flag = ChaosFlag(drop=drop, refuse=refuse, delay_ms=1, percent=percent)
    roll = random.Random(seed).random
    found = Counter(flag.fault("", roll) for _ in range(2000))
    shares = {Fault.DROP: drop, Fault.REFUSE: refuse, Fault.DELAY: 100 - drop - refuse}
    for fault, share in shares.items():
        assert abs(found[fault] / 2000 - share * percent / 10_000) < 0.06


def test_only_where_it_is_allowed() -> None:
    assert not chaos_allowed(NodeSettings())
    assert chaos_allowed(NodeSettings(allow_chaos=True))
    assert chaos_allowed(NodeSettings(environment="development"))
