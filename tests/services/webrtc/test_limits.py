"""Rates of OFFERs, with a fake clock."""

from __future__ import annotations

from services.webrtc.limits import (
    MAX_SOURCES,
    OFFERS_PER_S,
    REFUSED_SERVER_RATE,
    REFUSED_SOURCE_RATE,
    SOURCE_BURST,
    OfferLimiter,
)


def test_one_source_is_held_back_and_comes_again() -> None:
    limiter = OfferLimiter()
    results = [limiter.refuse("peer-1", 0.0) for _ in range(6)]
    assert results == [None] * int(SOURCE_BURST) + [REFUSED_SOURCE_RATE] * 2
    assert limiter.refuse("peer-2", 0.0) is None
    assert limiter.refuse("peer-1", 0.6) is None


def test_many_sources_share_the_servers_rate() -> None:
    limiter = OfferLimiter()
    results = [limiter.refuse(f"peer-{number}", 0.0) for number in range(25)]
    assert results.count(None) == OFFERS_PER_S
    assert results[-1] == REFUSED_SERVER_RATE


def test_a_flood_by_one_does_not_use_up_the_rest() -> None:
    limiter = OfferLimiter()
    for _ in range(1000):
        limiter.refuse("peer-flood", 0.0)
    assert limiter.refuse("peer-2", 0.0) is None


def test_sources_are_bounded() -> None:
    limiter = OfferLimiter()
    for number in range(MAX_SOURCES + 100):
        limiter.refuse(f"peer-{number}", float(number))
    assert len(limiter._sources) == MAX_SOURCES
