"""Ports of several webtorrent workers of one node: each is a peer of its own."""

from __future__ import annotations

from services.supervisor.machine.node import wire_ports
from shared.settings.config import WebtorrentSettings


def test_the_first_has_what_is_set_and_each_other_the_next() -> None:
    settings = WebtorrentSettings(port=6881, dht_port=6900)
    assert wire_ports(settings, 1) == {}
    assert wire_ports(settings, 3) == {
        "SWARMBRIDGE_WEBTORRENT_PORT": "6883",
        "SWARMBRIDGE_WEBTORRENT_DHT_PORT": "6902",
    }


def test_any_port_stays_any() -> None:
    assert wire_ports(WebtorrentSettings(dht_port=6900), 2) == {"SWARMBRIDGE_WEBTORRENT_DHT_PORT": "6901"}


def test_there_is_none_beyond_the_last() -> None:
    assert wire_ports(WebtorrentSettings(port=65_535), 2) == {}
