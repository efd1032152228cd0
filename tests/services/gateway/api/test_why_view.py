from __future__ import annotations

import asyncio
from typing import Any

from shared.bus.messages.envelopes import TransferUpdate
from shared.bus.messages.records import HopRecord, LinkChanged
from shared.errors import Cause
from shared.ids import member_token, peer_name
from shared.transports import TransportName
from tests.fakes.waiting import DEADLINE_S
from tests.services.gateway.node import GatewayNode
from tests.services.gateway.why.test_phases import fell_back, hop

TOKEN = member_token(bytes(32))
PEER = peer_name(TOKEN)
CALL = bytes(range(16))


async def _append(node: GatewayNode, records: list[HopRecord]) -> None:
    for record in records:
        await node.bus.append(
            node.subjects.hop(record.transport), record, f"{record.delivery}.{record.number}.{record.transfer}"
        )


async def _known(node: GatewayNode, **changes: Any) -> None:
    """A transfer that fell back."""
    values: dict[str, Any] = {"peer": PEER, "transfer": CALL.hex(), **changes}
    await _append(node, fell_back("d1", "webrtc", Cause.WORKER_LOST, "webtorrent", 0, **values))
    await node.once("/api/hops", lambda found: len(found) >= 2)


async def test_a_peer_by_its_name_and_by_its_token(node: GatewayNode) -> None:
    await _known(node)
    by_name = await node.get(f"/api/why/{PEER}")
    assert (by_name["kind"], by_name["id"], by_name["verdict"]) == ("peer", PEER, "fallback")
    assert "because the webrtc worker was lost (worker_lost)" in by_name["headline"]
    by_token = await node.get(f"/api/why/{TOKEN}")
    assert by_token["headline"] == by_name["headline"]


async def test_a_transfer_by_its_id_and_the_beginning_of_it(node: GatewayNode) -> None:
    update = TransferUpdate(CALL, "get", "running", "n" * 100, 1, 2, 1, 2, {}, started_ms=1)
    await node.bus.publish(node.subjects.event("transfer"), update)
    await _known(node)
    await node.once("/api/transfers", lambda found: found)
    whole = await node.get(f"/api/why/{CALL.hex()}")
    assert (whole["kind"], whole["id"], whole["peers"]) == ("transfer", CALL.hex(), [PEER])
    assert whole["headline"].startswith("n" * 59 + "… arrives over webtorrent since ")
    assert (await node.get(f"/api/why/{CALL.hex()[:6]}"))["headline"] == whole["headline"]
    await node.get(f"/api/why/{CALL.hex()[:5]}", 404)


async def test_a_transfer_of_before_the_gateway_is_known_by_its_hops(node: GatewayNode) -> None:
    await _known(node)
    assert (await node.get(f"/api/why/{CALL.hex()}"))["headline"].startswith("the file arrives over webtorrent")


async def test_a_beginning_that_is_of_two_transfers_is_not_guessed(node: GatewayNode) -> None:
    await _known(node)
    await _append(node, [hop("d2", "webrtc", peer=PEER, transfer=CALL.hex()[:-1] + "e")])
    await node.once("/api/hops", lambda found: len(found) == 3)
    answer = await node.get(f"/api/why/{CALL.hex()[:10]}", 400)
    assert answer["error"]["message"] == "2 transfers begin so"


async def test_what_is_unknown_is_not_found(node: GatewayNode) -> None:
    for subject in ("peer-0000000000000000", TOKEN, "abcdef", "nothing", "kabc", "ABCDEF", "peer-1"):
        assert (await node.get(f"/api/why/{subject}", 404))["error"]["code"] == "not_found"
    await node.get("/api/why/abcdef", 400, params={"utcOffset": "x"})


async def test_changes_come_from_the_bus(node: GatewayNode) -> None:
    await node.flags.set(TransportName.WEBTORRENT, False)
    await _known(node, peer="peer-00000000000000bb")
    found = await node.once(f"/api/why/{CALL.hex()}", lambda found: found["changes"])
    assert [change["kind"] for change in found["changes"]] == ["flag_off"]


async def test_a_peer_of_which_only_a_link_is_known(node: GatewayNode) -> None:
    link = LinkChanged("webrtc", "w1", PEER, "member", "closed", Cause.SILENT, 5)
    await node.bus.publish(node.subjects.event("link"), link)
    async with asyncio.timeout(DEADLINE_S):
        while (await node.session.get(f"{node.url}/api/why/{PEER}")).status == 404:
            await asyncio.sleep(0.01)
    found = await node.get(f"/api/why/{PEER}")
    assert (found["verdict"], found["timeline"]) == ("idle", [])
