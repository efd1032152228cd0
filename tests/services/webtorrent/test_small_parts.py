"""Limits, endpoints, addresses and health: the pure ones."""

from __future__ import annotations

import pytest

from services.webtorrent.addresses import OurAddresses, our_addresses
from services.webtorrent.endpoints import Endpoint, endpoint, is_wildcard, parse_endpoint, split_host_port
from services.webtorrent.health import START_GRACE_S, Ways, state_of
from services.webtorrent.limits import (
    MAX_HALF_OPEN,
    MAX_LINKS,
    MAX_LINKS_PER_ADDRESS,
    REFUSED_ADDRESS,
    REFUSED_HALF_OPEN,
    REFUSED_LINKS,
    Admission,
)
from shared.errors import Cause, TransportError
from shared.settings.config import WebtorrentSettings
from shared.transport.contract import StateChanged
from shared.transports import TransportState


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Endpoint("127.0.0.1", 80)),
        ("[::1]:6881", Endpoint("::1", 6881)),
        ("[0:0::0:1]:6881", Endpoint("::1", 6881)),
        ("[::ffff:10.0.0.1]:5", Endpoint("10.0.0.1", 5)),
    ],
)
def test_endpoints(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected
    assert parse_endpoint(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+5", "127.0.0.1:٣", "localhost:80"),
        *("::1:80", "[::1%eth0]:80", "127.1:80", "0x7f.0.0.1:80", "127.0.0.1 :80", "[127.0.0.1:80"),
    ],
)
def test_what_is_no_endpoint(text: str) -> None:
    assert parse_endpoint(text) is None


def test_configured_hosts_may_be_names() -> None:
    assert split_host_port("router.example:6881") == ("router.example", 6881)
    assert split_host_port("[::1]:6881") == ("::1", 6881)
    assert split_host_port("router.example") is None
    assert split_host_port("router.example:999999999") is None
    assert (is_wildcard(""), is_wildcard("0.0.0.0"), is_wildcard("::"), is_wildcard("name")) == (True,) * 3 + (False,)
    assert endpoint("10.0.0.1", 0) is None


async def test_where_others_reach_us() -> None:
    assert await our_addresses(WebtorrentSettings(host="127.0.0.1")) == OurAddresses("127.0.0.1", "")
    assert (await our_addresses(WebtorrentSettings(host="localhost"))).host in ("127.0.0.1", "::1")
    assert OurAddresses("10.0.0.1", "").advertised(5, "10.9.9.9") == ["10.0.0.1:5"]
    assert OurAddresses("0.0.0.0", "").advertised(5, "10.9.9.9") == ["10.9.9.9:5"]
    assert OurAddresses("0.0.0.0", "").advertised(5, "") == []
    assert OurAddresses("0.0.0.0", "192.0.2.7").advertised(5, "10.9.9.9") == ["192.0.2.7:5"]
    assert OurAddresses("0.0.0.0", "192.0.2.7").own(5) == [Endpoint("192.0.2.7", 5)]
    with pytest.raises(TransportError) as raised:
        await our_addresses(WebtorrentSettings(host="no such host"))
    assert raised.value.cause is Cause.REFUSED


def test_health() -> None:
    def state(*, dht: bool = False, trackers: int = 0, failed: bool = False, age_s: float = 60.0) -> StateChanged:
        return state_of(Ways(dht, trackers, failed, age_s))

    assert state(age_s=START_GRACE_S - 1) == StateChanged(TransportState.INITIALIZING)
    assert state() == StateChanged(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE)
    assert state(dht=True) == state(trackers=1) == StateChanged(TransportState.READY)
    assert state(dht=True, trackers=1, failed=True) == StateChanged(TransportState.DEGRADED, Cause.IMPORT_FAILED)


def test_admission_by_address_half_open_and_in_all() -> None:
    admission = Admission()
    seats = [admission.take("10.0.0.1") for _ in range(MAX_LINKS_PER_ADDRESS)]
    assert admission.refusal("10.0.0.1") == REFUSED_ADDRESS
    assert admission.refusal("10.0.0.2") is None
    for _ in range(2):
        seats[0].leave()
        seats[0].opened()
    assert admission.refusal("10.0.0.1") is None
    half_open = [admission.take(f"10.1.0.{each}") for each in range(MAX_HALF_OPEN - len(seats) + 1)]
    assert (admission.refusal("10.0.0.2"), admission.half_open_room) == (REFUSED_HALF_OPEN, 0)
    for seat in [*seats, *half_open]:
        seat.opened()
        seat.opened()
    assert admission.half_open_room == MAX_HALF_OPEN
    for each in range(MAX_LINKS - len(seats) + 1 - len(half_open)):
        admission.take(f"10.2.{each // 200}.{each % 200}").opened()
    assert admission.refusal("10.0.0.2") == REFUSED_LINKS
