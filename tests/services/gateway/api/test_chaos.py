"""Chaos flags over HTTP: refused in production, validated, listed, cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.settings.chaos import ChaosFlag
from shared.transports import TransportName
from tests.services.gateway.node import GatewayNode, gateway_node

PEER = "peer-0123456789abcdef"
CHAOS = "/api/chaos/webrtc"


async def test_production_refuses_to_set_but_clears(node: GatewayNode) -> None:
    answer = await node.ask("PUT", CHAOS, 403, json={"drop": 20})
    assert answer["error"]["code"] == "forbidden"
    assert "production" in answer["error"]["message"]
    assert "node.environment" in answer["error"]["hint"]
    assert (await node.get("/api/flags"))["chaos"] == {}
    await node.flags.set_chaos(TransportName.WEBRTC, ChaosFlag(drop=20))
    assert "webrtc" in (await node.get("/api/flags"))["chaos"]
    assert (await node.ask("DELETE", CHAOS))["chaos"] == {}


@pytest.mark.parametrize("settings", [{"environment": "development"}, {"allow_chaos": True}])
async def test_set_list_and_clear(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with gateway_node(tmp_path, **settings) as node:
        faults = {"drop": 20, "delayMs": 500, "refuse": 0, "percent": 50, "peer": PEER}
        changed = await node.ask("PUT", CHAOS, json=faults)
        assert changed["chaos"] == {"webrtc": faults}
        assert changed["webrtcTransport"] is True
        await node.ask("PUT", "/api/chaos/broadcast", json={"refuse": 100})
        listed = (await node.get("/api/flags"))["chaos"]
        assert listed["broadcast"] == {"drop": 0, "delayMs": 0, "refuse": 100, "percent": 100, "peer": ""}
        assert node.flags.chaos(TransportName.WEBRTC) == ChaosFlag(20, 500, 0, 50, PEER)
        assert list((await node.ask("DELETE", CHAOS))["chaos"]) == ["broadcast"]


async def test_what_is_no_flag_is_said_in_words(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, environment="development") as node:
        for body, words in (
            ({"drop": 101}, "percentages"),
            ({}, "must be set"),
            ({"drop": 5, "peer": "somebody"}, "peer's name"),
            ({"explode": 5}, "JSON"),
            ({"drop": "many"}, "JSON"),
        ):
            answer = await node.ask("PUT", CHAOS, 400, json=body)
            assert words in answer["error"]["message"]
        for method in ("PUT", "DELETE"):
            answer = await node.ask(method, "/api/chaos/pigeons", 404, json={"drop": 5})
            assert "webtorrent" in answer["error"]["hint"]
        async with node.session.put(
            node.url + CHAOS, json={"drop": 5}, headers={"Authorization": "Bearer x"}
        ) as answer:
            assert answer.status == 401
        assert (await node.get("/api/flags"))["chaos"] == {}
