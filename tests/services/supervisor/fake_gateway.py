"""A gateway that moves pretended chunks at the pace of being asked, over whichever transport is on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from services.supervisor.machine.gateway_client import GatewayClient
from shared.clock import unix_ms

CHUNK_BYTES = 2**20
ORDER = ("webrtc", "webtorrent", "broadcast")


class World:
    """What both fake nodes share: the bytes, and which transports work."""

    def __init__(self) -> None:
        self.on = dict.fromkeys(ORDER, True)
        self.contents: dict[str, bytes] = {}
        self.transfers: dict[str, dict[str, Any]] = {}
        self.attempts: dict[str, list[dict[str, Any]]] = {}
        self.chunks_a_poll = 1
        self.corrupt = False
        self.cause = "no_link"
        self.events: list[str] = []

    def carrier(self) -> str:
        return next(name for name in ORDER if self.on[name])


class FakeActor:
    """A node of the story: `Actor`."""

    def __init__(self, world: World, name: str, api: GatewayClient) -> None:
        self._world = world
        self._name = name
        self.api = api

    async def kill(self, service: str) -> None:
        self._world.events.append(f"kill {service} {self._name}")
        self._world.on[service] = False

    def revive(self, service: str) -> None:
        self._world.events.append(f"revive {service} {self._name}")
        self._world.on[service] = True


@asynccontextmanager
async def fake_actor(world: World, name: str) -> AsyncIterator[FakeActor]:
    server = TestServer(_application(world))
    await server.start_server()
    api = GatewayClient(str(server.make_url("")), "token")
    try:
        yield FakeActor(world, name, api)
    finally:
        await api.close()
        await server.close()


def _application(world: World) -> web.Application:
    handlers = _Handlers(world)
    application = web.Application(client_max_size=2**26)
    application.add_routes(
        [
            web.post("/api/files", handlers.put),
            web.post("/api/fetches", handlers.fetch),
            web.get("/api/transfers/{id}", handlers.transfer),
            web.get("/api/files/{id}/content", handlers.content),
            web.get("/api/attempts", handlers.attempts),
            web.get("/api/stats", handlers.stats),
            web.put("/api/flags/{name}", handlers.flag),
        ]
    )
    return application


class _Handlers:
    def __init__(self, world: World) -> None:
        self._world = world

    async def put(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer token"
        content = await request.read()
        digest = hashlib.sha256(content).hexdigest()
        self._world.contents[digest] = content
        return self._begin(f"put-{digest}", "done", digest, len(content))

    async def fetch(self, request: web.Request) -> web.Response:
        digest = (await request.json())["link"].removeprefix("swarmbridge:")
        transfer = f"get-{digest}"
        self._world.attempts[transfer] = [self._attempt("manifest")]
        return self._begin(transfer, "running", digest, len(self._world.contents[digest]))

    def _begin(self, transfer: str, state: str, digest: str, length: int) -> web.Response:
        self._world.transfers[transfer] = {
            "id": transfer,
            "state": state,
            "chunksDone": 0,
            "chunksTotal": length // CHUNK_BYTES,
            "bytesDone": 0,
            "bytesTotal": length,
            "byTransport": {},
            "link": f"swarmbridge:{digest}",
            "manifest": digest,
            "somethingNew": 1,
        }
        return web.json_response({"transfer": transfer}, status=202)

    async def transfer(self, request: web.Request) -> web.Response:
        now = self._world.transfers[request.match_info["id"]]
        answer = web.json_response(now)
        if now["state"] == "running":
            for _ in range(self._world.chunks_a_poll):
                self._move_chunk(now)
        return answer

    def _move_chunk(self, now: dict[str, Any]) -> None:
        if now["chunksDone"] == now["chunksTotal"]:
            now["state"] = "done"
            return
        carrier = self._world.carrier()
        now["chunksDone"] += 1
        now["bytesDone"] += CHUNK_BYTES
        now["byTransport"] = {**now["byTransport"], carrier: now["byTransport"].get(carrier, 0) + CHUNK_BYTES}
        self._world.attempts[now["id"]].append(self._attempt(str(now["chunksDone"])))

    def _attempt(self, delivery: str) -> dict[str, Any]:
        return {
            "delivery": delivery,
            "number": 1,
            "transport": self._world.carrier(),
            "outcome": "confirmed",
            "cause": None,
            "startedMs": unix_ms(),
            "elapsedMs": 1.0,
            "bytes": CHUNK_BYTES,
            **self._fallback(),
        }

    def _fallback(self) -> dict[str, str]:
        """What was tried before, where anything was: the transport above the one that carries."""
        tried = ORDER[: ORDER.index(self._world.carrier())]
        return {"fallbackFrom": tried[-1], "fallbackCause": self._world.cause} if tried else {}

    async def content(self, request: web.Request) -> web.Response:
        content = self._world.contents[request.match_info["id"]]
        return web.Response(body=content[::-1] if self._world.corrupt else content)

    async def attempts(self, request: web.Request) -> web.Response:
        return web.json_response(self._world.attempts[request.query["transfer"]])

    async def stats(self, request: web.Request) -> web.Response:
        rows = [
            {"id": n, "state": "ready", "workers": int(on), "connectedPeers": int(on)}
            for n, on in self._world.on.items()
        ]
        return web.json_response({"transports": rows})

    async def flag(self, request: web.Request) -> web.Response:
        enabled = (await request.json())["enabled"]
        if request.match_info["name"] != "webTorrentTransport":
            return web.json_response({"error": {"code": "not_found", "message": "no such flag"}}, status=404)
        self._world.events.append(f"flag {enabled}")
        self._world.on["webtorrent"] = enabled
        return web.json_response({})
