"""The rendezvous document: each member by itself, and the one follower of its file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigError
from shared.settings import rendezvous_follower as module
from shared.settings.rendezvous import Fault, RendezvousDocument, load_document, parse_document
from shared.settings.rendezvous_follower import DocumentFollower


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("peerServers", {"url": "http://127.0.0.1:9000/"}, {"url": "ftp://127.0.0.1/"}),
        ("peerServers", {"url": "https://peers.example/path"}, {"url": "http://a..b/"}),
        ("peerServers", {"url": "http://[::1]:1/"}, {"url": "http://127.0.0.1:99999/"}),
        ("peerServers", {"url": "http://127.0.0.1/"}, {"ur": "http://127.0.0.1/"}),
        ("webtorrentTrackers", "ws://127.0.0.1:1/announce", "ws://a..b/announce"),
        ("webtorrentTrackers", "wss://tracker.example", "udp://tracker.example"),
        ("webtorrentTrackers", "ws://127.0.0.1:1/", 5),
        ("webtorrentTrackers", "ws://127.0.0.1:1/", "ws://" + "a" * 64 + ".example/"),
        ("iceServers", {"urls": ["stun:127.0.0.1:9"]}, {"urls": ["stun://127.0.0.1:9"]}),
        ("iceServers", {"urls": ["stun:stun.example"]}, {"urls": ["stun:127.0.0.1:99999"]}),
        ("iceServers", {"urls": ["stun:stun.example"]}, {"urls": []}),
        ("iceServers", {"urls": ["stun:stun.example"]}, {"urls": ""}),
        ("iceServers", {"urls": ["stun:a"]}, {"urls": ["turn:a?transport=tcp"]}),
        ("dhtNodes", "127.0.0.1:6881", "127.0.0.1"),
        ("dhtNodes", "[::1]:6881", "a..b:1"),
        ("dhtNodes", "router.example:1", "router.example:0"),
    ],
)
def test_a_bad_member_is_named_and_the_others_stay(name: str, good: Any, bad: Any) -> None:
    reading = parse_document(json.dumps({name: [bad, good]}).encode())
    assert [(fault.list, fault.index) for fault in reading.faults] == [(name, 0)]
    alone = parse_document(json.dumps({name: [good]}).encode())
    assert reading.document == alone.document != RendezvousDocument()
    assert alone.faults == ()


def test_too_many_members_are_left_out() -> None:
    reading = parse_document(json.dumps({"dhtNodes": [f"127.0.0.1:{port}" for port in range(1, 100)]}).encode())
    assert len(reading.document.dht_nodes) == 64
    assert reading.faults[0] == Fault("dhtNodes", 64, "more than 64")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dhtNodes": "x"}', "\xff"])
def test_what_is_no_document_is_a_config_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        load_document(str(file))


async def test_the_follower_keeps_the_last_good_one(tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    follower = DocumentFollower(str(file))
    assert (follower.current, bool(follower.problem)) == (RendezvousDocument(), True)
    file.write_text('{"dhtNodes": ["127.0.0.1:1"]}')
    assert await follower.reload()
    assert (follower.current.dht_nodes, follower.problem) == (["127.0.0.1:1"], "")
    file.write_text("{")
    assert await follower.reload()
    assert follower.current.dht_nodes == ["127.0.0.1:1"]
    assert follower.problem
    assert not await follower.reload(), "nothing new"


async def test_the_follower_reports_changes_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_EVERY_S", 0.01)
    file = tmp_path / "document.json"
    follower, changed = DocumentFollower(str(file)), asyncio.Event()
    running = asyncio.create_task(follower.run(changed.set))
    try:
        file.write_text('{"dhtNodes": ["127.0.0.1:1"]}')
        async with asyncio.timeout(10.0):
            while not follower.current.dht_nodes:
                await changed.wait()
                changed.clear()
    finally:
        running.cancel()
    await DocumentFollower("").run(changed.set)


def test_an_ice_server_may_have_one_url_without_a_list() -> None:
    """As WebRTC's own RTCIceServer."""
    reading = parse_document(b'{"iceServers": [{"urls": "stun:127.0.0.1:9"}]}')
    assert reading.faults == ()
    assert reading.document.ice_servers[0].urls == ["stun:127.0.0.1:9"]
