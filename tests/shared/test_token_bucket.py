"""How often something may happen."""

from __future__ import annotations

from shared.token_bucket import TokenBucket


def test_as_many_as_the_burst_then_at_the_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(0.0) == 0.5
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_one_that_was_never_asked_is_full_whatever_the_clock_says() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0)
    assert bucket.wait_s(-5.0) == 0.0
    assert [bucket.take(-5.0), bucket.take(-5.0)] == [True, False]


def test_a_clock_that_steps_back_takes_nothing_away() -> None:
    bucket = TokenBucket(rate=1.0, burst=2.0, now=10.0)
    assert bucket.take(10.0)
    assert bucket.take(5.0)
