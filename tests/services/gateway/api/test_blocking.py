"""The blocklist over HTTP: set, changed, lifted, listed, shown to pages and by `why`, whoever changed it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shared.bus.messages.subjects import BUCKET_BLOCKLIST
from shared.clock import unix_ms
from shared.errors import Cause
from shared.ids import guest_token, member_token, peer_name
from shared.settings import blocklist as settings
from shared.settings.blocklist import MAX_NOTE_CHARS, Blocklist, Direction
from shared.transports import ORDER
from tests.fakes.memory_bus import MemoryHub
from tests.services.gateway.fake_chunk import IDENTITY
from tests.services.gateway.http.test_events import _next
from tests.services.gateway.node import GatewayNode, gateway_node
from tests.services.gateway.why.test_phases import hop

TOKEN = member_token(bytes(32))
PEER = peer_name(TOKEN)
GUEST_TOKEN = guest_token("some page")
GUEST = peer_name(GUEST_TOKEN)
BLOCKLIST = "/api/blocklist"


async def test_block_change_list_and_lift(node: GatewayNode) -> None:
    assert await node.get(BLOCKLIST) == []
    before_ms = unix_ms()
    (blocked,) = await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={"direction": "outbound", "note": "asks too much"})
    assert before_ms <= blocked.pop("since") <= unix_ms()
    assert blocked == {"peer": PEER, "direction": "outbound", "note": "asks too much"}
    assert node.process.blocklist.blocks(PEER, Direction.OUTBOUND)
    (changed,) = await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={})
    assert (changed["direction"], changed["note"]) == ("all", "")
    assert await node.get(BLOCKLIST) == [changed]
    assert await node.ask("DELETE", f"{BLOCKLIST}/{PEER}") == []
    assert not node.process.blocklist.blocks(PEER, Direction.OUTBOUND)


async def test_a_token_means_the_peer_that_it_names(node: GatewayNode) -> None:
    for token in (TOKEN, GUEST_TOKEN):
        await node.ask("PUT", f"{BLOCKLIST}/{token}", json={"direction": "inbound"})
    assert [block["peer"] for block in await node.get(BLOCKLIST)] == [GUEST, PEER]
    assert [block["peer"] for block in await node.ask("DELETE", f"{BLOCKLIST}/{GUEST_TOKEN}")] == [PEER]


async def test_what_is_refused_is_said_in_words(node: GatewayNode) -> None:
    for peer in ("somebody", "peer-0123456789ABCDEF", "kabc", "peer-1", TOKEN.upper(), f"{PEER}%0a", "*"):
        for method in ("PUT", "DELETE"):
            answer = await node.ask(method, f"{BLOCKLIST}/{peer}", 400, json={})
            assert answer["error"]["message"] == "this names no peer"
    for body, words in (
        ({"note": "x" * (MAX_NOTE_CHARS + 1)}, "too long"),
        ({"note": "one line\nand another"}, "cannot be printed"),
        ({"note": "red \x1b[31m"}, "cannot be printed"),
        ({"note": "turned \u202e round"}, "cannot be printed"),
        ({"direction": "sideways"}, "JSON"),
        ({"note": 5}, "JSON"),
    ):
        answer = await node.ask("PUT", f"{BLOCKLIST}/{PEER}", 400, json=body)
        assert words in answer["error"]["message"]
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={"note": "x" * MAX_NOTE_CHARS})
    lifted = await node.ask("DELETE", f"{BLOCKLIST}/{GUEST}", 404)
    assert lifted["error"]["message"] == "this peer is not blocked"
    await node.get(f"{BLOCKLIST}/{PEER}", 405)


async def test_the_node_itself_is_not_blocked(node: GatewayNode) -> None:
    for us in (IDENTITY, peer_name(IDENTITY)):
        answer = await node.ask("PUT", f"{BLOCKLIST}/{us}", 400, json={})
        assert "the node itself" in answer["error"]["message"]
    assert await node.get(BLOCKLIST) == []


async def test_a_node_that_does_not_know_itself_can_block(node: GatewayNode) -> None:
    await node.chunk.close()
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={})


async def test_a_full_list_is_said_in_words(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAX_BLOCKED", 1)
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={})
    answer = await node.ask("PUT", f"{BLOCKLIST}/{GUEST}", 409, json={})
    assert (answer["error"]["code"], answer["error"]["message"]) == ("too_large", "the blocklist is full")
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={"direction": "inbound"})


async def test_only_the_operator_blocks(node: GatewayNode) -> None:
    for method in ("GET", "PUT", "DELETE"):
        path = BLOCKLIST if method == "GET" else f"{BLOCKLIST}/{PEER}"
        for headers, status in (({"Authorization": "Bearer x"}, 401), ({"Origin": "http://evil.example"}, 403)):
            async with node.session.request(method, node.url + path, json={}, headers=headers) as answer:
                assert answer.status == status
    assert node.process.blocklist.snapshot() == {}


async def test_each_change_is_reported_whoever_makes_it(node: GatewayNode) -> None:
    another = Blocklist()
    await another.start(node.bus)
    async with node.session.get(node.url + "/api/events") as stream:
        await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={"note": "<b>not bold</b>"})
        assert [block["note"] for block in await _next(stream, "blocklist")] == ["<b>not bold</b>"]
        await another.block(GUEST, Direction.INBOUND)
        assert [block["peer"] for block in await _next(stream, "blocklist")] == [GUEST, PEER]
        await another.unblock(PEER)
        assert [block["peer"] for block in await _next(stream, "blocklist")] == [GUEST]
    await another.close()


async def test_metrics_count_the_blocked(node: GatewayNode) -> None:
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={})
    async with node.session.get(node.url + "/metrics") as response:
        assert "\nswarmbridge_blocked_peers 1.0\n" in await response.text()


async def test_an_entry_that_cannot_be_read_is_listed(node: GatewayNode) -> None:
    bucket = await node.bus.kv(BUCKET_BLOCKLIST)
    await bucket.put(PEER, b"nonsense")
    (block,) = await node.once(BLOCKLIST, bool)
    assert (block["direction"], block["note"], block["since"]) == ("all", "the stored entry cannot be read", 0)
    assert await node.ask("DELETE", f"{BLOCKLIST}/{PEER}") == []


# ── what `why` says of it ──


async def _skipped(node: GatewayNode, peer: str, delivery: str) -> None:
    """A delivery that a manager refused, as it records one: every transport passed over."""
    for number, transport in enumerate(ORDER, 1):
        skipped = hop(delivery, transport.value, "skipped", cause=Cause.BLOCKED, number=number, peer=peer)
        record = msgspec.structs.replace(skipped, started_ms=unix_ms(), elapsed_ms=0.0)
        await node.bus.append(node.subjects.hop(record.transport), record, f"{delivery}.{number}")


async def test_why_says_once_that_this_node_blocks_the_peer(node: GatewayNode) -> None:
    await node.ask("PUT", f"{BLOCKLIST}/{TOKEN}", json={"direction": "outbound", "note": "a test"})
    await _skipped(node, PEER, "d1")
    found = await node.once(f"/api/why/{PEER}", lambda found: len(found["timeline"]) == len(ORDER))
    assert found["verdict"] == "stuck"
    assert found["headline"].endswith(": this node has blocked the peer outbound (blocked)")
    assert found["headline"].count("blocked the peer") == 1
    assert {reason["change"] for reason in found["reasons"]} == {f'{PEER} was blocked (outbound, "a test")'}
    assert [change["kind"] for change in found["changes"]] == ["peer_blocked"]
    assert "blocklist remove" in found["causes"][0]["sentence"]


async def test_why_of_a_blocked_peer_that_was_asked_nothing(node: GatewayNode) -> None:
    await node.get(f"/api/why/{PEER}", 404)
    await node.ask("PUT", f"{BLOCKLIST}/{PEER}", json={})
    found = await node.get(f"/api/why/{PEER}")
    assert found["verdict"] == "idle"
    assert "this node has blocked it both ways since " in found["headline"]
    await node.ask("DELETE", f"{BLOCKLIST}/{PEER}")
    found = await node.get(f"/api/why/{PEER}")
    assert "blocked" not in found["headline"]
    assert [change["kind"] for change in found["changes"]] == ["peer_blocked", "peer_unblocked"]


async def test_what_was_blocked_before_the_gateway_started_explains_too(tmp_path: Path) -> None:
    hub = MemoryHub()
    another = Blocklist()
    await another.start(hub.bus("other-2"))
    await another.block(PEER, Direction.ALL)
    since_ms = another.snapshot()[PEER].since_ms
    async with gateway_node(tmp_path, hub=hub) as node:
        await _skipped(node, PEER, "d1")
        found = await node.once(f"/api/why/{PEER}", lambda found: len(found["timeline"]) == len(ORDER))
        assert found["headline"].endswith(": this node has blocked the peer both ways (blocked)")
        assert [(change["at"], change["direction"]) for change in found["changes"]] == [(since_ms, "all")]


async def test_why_points_at_the_other_end_where_it_is_that_which_blocks(node: GatewayNode) -> None:
    await _skipped(node, PEER, "d1")
    found = await node.once(f"/api/why/{PEER}", lambda found: len(found["timeline"]) == len(ORDER))
    assert found["headline"].endswith(
        ": one end has blocked the other (blocked); the block is at the other end, not here: ask who runs it"
    )
