from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from services.gateway.http import limits
from services.gateway.http.events import RESYNC, EventHub
from shared.bus.messages.envelopes import TransferUpdate
from shared.bus.messages.records import Diagnostic, LinkChanged, Spans, WorkerStatus
from shared.errors import Cause
from tests.fakes.waiting import until
from tests.services.gateway.model.test_traces import _hop
from tests.services.gateway.node import GatewayNode

NAME = "peer-0123456789abcdef"


async def _next(response: aiohttp.ClientResponse, wanted: str) -> Any:
    """The data of the next `wanted` event; others are ignored."""
    async with asyncio.timeout(5):
        event = ""
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == wanted:
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


async def test_everything_that_happens_is_reported(node: GatewayNode) -> None:
    event = node.subjects.event
    async with node.session.get(node.url + "/api/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        status = WorkerStatus("w1", "webrtc", "active", Cause.CLOSED, ["peer-a"], True, False, 1)
        await node.bus.publish(event("status"), status)
        data = await _next(response, "status")
        assert (data["state"], data["lastError"], data["peers"]) == ("active", "closed", 1)
        assert (await _next(response, "stats"))["transports"][0]["state"] == "active"

        update = TransferUpdate(bytes(16), "get", "running", "a", 1, 2, 3, 4, {"webrtc": 3})
        await node.bus.publish(event("transfer"), update)
        assert (await _next(response, "transfer"))["byTransport"] == {"webrtc": 3}

        await node.bus.publish(event("link"), LinkChanged("webrtc", "w1", NAME, "member", "opened", None, 5))
        link = await _next(response, "link")
        assert (link["change"], link["role"]) == ("opened", "member")
        assert link["peer"] == NAME

        diagnostic = Diagnostic("d1", "warn", "manager", "transport-fallback", "text", 9, {"from": "webrtc"})
        await node.bus.publish(event("diagnostic"), diagnostic)
        assert (await _next(response, "diagnostic"))["code"] == "transport-fallback"

        await node.bus.publish(event("spans"), Spans([_hop("ab" * 16, "s", "p", 1, "failed")]))
        assert await _next(response, "trace") == {"traceId": "ab" * 16}

        await node.ask("PUT", "/api/flags/webTorrentTransport", json={"enabled": False})
        assert (await _next(response, "flags"))["webTorrentTransport"] is False


async def test_streams_are_limited(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_EVENT_STREAMS", 1)
    async with node.session.get(node.url + "/api/events") as first:
        assert first.status == 200
        assert (await node.get("/api/events", 503))["error"]["code"] == "busy"


async def test_a_stream_ends_with_the_gateway(node: GatewayNode) -> None:
    async with node.session.get(node.url + "/api/events") as response:
        node.process.stopping.set()
        async with asyncio.timeout(limits.SHUTDOWN_S):
            await response.read()


async def test_a_lost_worker_is_reported_without_any_news(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.model.status.WORKER_EXPIRY_S", 0.2)
    status = WorkerStatus("w1", "webrtc", "ready", None, [], True, False, 1)
    async with node.session.get(node.url + "/api/events") as response:
        await node.bus.publish(node.subjects.event("status"), status)
        states = []
        while "error" not in states:
            states.append((await _next(response, "stats"))["transports"][0]["state"])
        assert "ready" in states


async def test_a_slow_reader_is_asked_to_read_again() -> None:
    hub = EventHub()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(3)
    hub._queues.add(queue)  # a stream whose connection takes nothing
    for number in range(4):
        hub.publish("transfer", {"number": number})
    assert queue.get_nowait() == RESYNC
    assert queue.empty()
    hub.publish("transfer", {"number": 5})
    assert b'"number":5' in (queue.get_nowait() or b"")
    for number in range(3):
        hub.publish("transfer", {"number": number})
    hub.close()
    assert queue.get_nowait() is None
    await until(lambda: queue.empty())
