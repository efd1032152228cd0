from __future__ import annotations

from typing import Any

import aiohttp

from shared.bus.messages.records import Diagnostic, HopRecord, LinkChanged, ManagerStatus, Spans, WorkerStatus
from shared.errors import Cause
from shared.ids import member_token, peer_name
from shared.version import VERSION
from tests.fakes.waiting import until
from tests.services.gateway.fake_chunk import IDENTITY
from tests.services.gateway.model.test_traces import _hop
from tests.services.gateway.node import GatewayNode


async def _record(node: GatewayNode, number: int, transport: str, outcome: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "delivery": f"d{number}",
        "number": 1,
        "transport": transport,
        "peer": "peer-a",
        "outcome": outcome,
        "cause": None,
        "fallback_from": "",
        "fallback_cause": None,
        "hedged": False,
        "started_ms": 1000 + number,
        "elapsed_ms": 2.5,
        "bytes": 100,
        "trace_id": "ab" * 16,
        "transfer": "t1",
        "manager": "m1",
    }
    await node.bus.append(node.subjects.hop(transport), HopRecord(**{**values, **changes}), f"{number}.{transport}")


async def test_who_the_node_is(node: GatewayNode) -> None:
    assert await node.get("/api/node") == {
        "node": "n",
        "peer": IDENTITY,
        "name": peer_name(IDENTITY),
        "version": VERSION,
    }


async def test_stats_come_from_heartbeats_and_hops(node: GatewayNode) -> None:
    status = WorkerStatus("w1", "webrtc", "active", None, ["peer-a"], True, False, 1)
    await node.bus.publish(node.subjects.event("status"), status)
    await _record(node, 1, "webrtc", "failed", cause=Cause.CLOSED)
    await _record(node, 1, "webtorrent", "confirmed", fallback_from="webrtc", fallback_cause=Cause.CLOSED)

    stats = await node.once(
        "/api/stats", lambda stats: stats["transportFallbacks"] and stats["transports"][0]["state"] == "active"
    )
    assert stats["lastTransportFallbackAt"] == 1001
    webrtc, webtorrent, broadcast = stats["transports"]
    assert [row["id"] for row in stats["transports"]] == ["webrtc", "webtorrent", "broadcast"]
    assert (webrtc["label"], webrtc["enabled"], webrtc["connectedPeers"]) == ("PeerJS DataChannels", True, 1)
    assert (webrtc["fallbackCount"], webrtc["fallbackCauses"]) == (1, {"closed": 1})
    assert (webrtc["hops"], webrtc["lastError"]) == ({"failed": 1}, "closed")
    assert (webtorrent["hops"], webtorrent["fallbackCount"]) == ({"confirmed": 1}, 0)
    assert broadcast["state"] in ("initializing", "error")


async def test_stats_show_the_managers(node: GatewayNode) -> None:
    status = ManagerStatus("m1", 3, {"busy": 2}, 0.01, 1)
    await node.bus.publish(node.subjects.event("manager"), status)
    stats = await node.once("/api/stats", lambda stats: stats["managers"]["count"])
    assert stats["managers"] == {
        "count": 1,
        "deliveries": 3,
        "refused": {"busy": 2},
        "duplicateShare": 0.01,
        "instances": {"m1": 3},
        "taken": {"m1": 0},
    }


async def test_switching_off_resets_and_shows_at_once(node: GatewayNode) -> None:
    await _record(node, 1, "webtorrent", "confirmed", fallback_from="webrtc", fallback_cause=Cause.SILENT)
    await node.once("/api/stats", lambda stats: stats["transportFallbacks"])
    flags = await node.ask("PUT", "/api/flags/webrtcTransport", json={"enabled": False})
    assert flags["webrtcTransport"] is False
    row = (await node.get("/api/stats"))["transports"][0]
    assert (row["enabled"], row["state"], row["fallbackCount"], row["lastFallbackAt"]) == (False, "idle", 0, None)
    await node.ask("PUT", "/api/flags/webrtcTransport", json={"enabled": True})
    stats = await node.get("/api/stats")
    assert (stats["transportFallbacks"], stats["transports"][0]["fallbackCount"]) == (0, 0)
    async with node.session.get(node.url + "/metrics") as response:
        text = await response.text()
    assert 'fallbacks_total{cause="silent",from="webrtc"} 1.0' in text  # a counter never goes back


async def test_flags_by_name(node: GatewayNode) -> None:
    assert await node.get("/api/flags") == {
        "webrtcTransport": True,
        "webTorrentTransport": True,
        "broadcastTransport": True,
        "transportFallbackTelemetry": True,
        "chaos": {},
    }
    await node.ask("PUT", "/api/flags/transportFallbackTelemetry", json={"enabled": False})
    assert not (await node.get("/api/flags"))["transportFallbackTelemetry"]
    await node.ask("PUT", "/api/flags/nothing", 404, json={"enabled": False})
    await node.ask("PUT", "/api/flags/webrtcTransport", 400, json={"enabled": "no"})


async def test_hops_by_transfer_newest_first(node: GatewayNode) -> None:
    for number in range(4):
        await _record(node, number, "webrtc", "confirmed", transfer=f"t{number % 2}")
    await node.once("/api/hops", lambda found: len(found) == 4)
    found = await node.get("/api/hops", params={"transfer": "t1", "limit": "1"})
    assert [(row["delivery"], row["startedMs"], row["fallbackFrom"], row["cause"]) for row in found] == [
        ("d3", 1003, None, None)
    ]
    for limit in ("0", "-1", "x", "5001", "²"):
        await node.get("/api/hops", 400, params={"limit": limit})


async def test_peers_and_their_roles(node: GatewayNode) -> None:
    token = member_token(bytes(32))
    name = peer_name(token)
    event = node.subjects.event
    await node.bus.publish(event("link"), LinkChanged("webrtc", "w1", name, "member", "opened", None, 5))
    for transport in ("webrtc", "broadcast"):
        status = WorkerStatus(f"{transport}-1", transport, "active", None, [name], True, False, 1)
        await node.bus.publish(event("status"), status)
    peers = await node.once("/api/peers", lambda found: found and len(found[0]["transports"]) == 2)
    assert peers == [{"peer": name, "transports": ["webrtc", "broadcast"], "role": "member"}]


async def test_traces_spans_and_waterfall(node: GatewayNode) -> None:
    trace_id = "ab" * 16
    await node.bus.publish(node.subjects.event("spans"), Spans([_hop(trace_id, "s", "p", 1, "failed")]))
    listed = await node.once("/api/traces", bool, params={"fallback": "1"})
    assert (listed[0]["traceId"], listed[0]["fallback"]) == (trace_id, True)
    [span] = await node.get(f"/api/traces/{trace_id}")
    assert (span["spanId"], span["attributes"]["attempt.outcome"]) == ("s", "failed")
    drawn = await node.get(f"/api/traces/{trace_id}/waterfall")
    assert drawn["rows"][0]["outcome"] == "failed"
    await node.get("/api/traces/nothing", 404)


async def test_diagnostics_newest_first(node: GatewayNode) -> None:
    for number in range(3):
        diagnostic = Diagnostic(str(number), "warn", "manager", "transport-fallback", "", number, {})
        await node.bus.publish(node.subjects.event("diagnostic"), diagnostic)
    found = await node.once("/api/diagnostics", lambda found: len(found) == 3)
    assert [entry["id"] for entry in found] == ["2", "1", "0"]


async def test_health_is_the_bus(node: GatewayNode) -> None:
    node.hub.disconnect("gateway-1")
    async with aiohttp.ClientSession() as session, session.get(node.url + "/healthz") as response:
        assert response.status == 503
    node.hub.reconnect("gateway-1")
    await until(lambda: node.process.bus.connected)
