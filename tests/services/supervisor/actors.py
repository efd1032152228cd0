"""Two nodes of the demo's story behind fake gateways: chunks move at the pace of being asked, over what is on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from shared.clock import unix_ms
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.structs import HopView, Started, Stats, Transfer, TransportStats
from tests.fakes.gateway import fake_gateway, json_answer, problem

CHUNK_BYTES = 2**20
ORDER = ("webrtc", "webtorrent", "broadcast")


class World:
    """What both fake nodes share: the bytes, and which transports work."""

    def __init__(self) -> None:
        self.on = dict.fromkeys(ORDER, True)
        self.contents: dict[str, bytes] = {}
        self.transfers: dict[str, Transfer] = {}
        self.hops: dict[str, list[HopView]] = {}
        self.chunks_a_poll = 1
        self.corrupt = False
        self.cause = "no_link"
        self.events: list[str] = []

    def carrier(self) -> str:
        return next(name for name in ORDER if self.on[name])


class FakeActor:
    """A node of the story: `Actor`."""

    def __init__(self, world: World, name: str, api: AsyncGatewayClient) -> None:
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
async def fake_actor(world: World, name: str, home: Path) -> AsyncIterator[FakeActor]:
    """home: an empty folder of its own."""
    async with fake_gateway(home) as gateway:
        gateway.answers = _Handlers(world).answers()
        api = AsyncGatewayClient.of_home(home)
        assert api is not None
        try:
            yield FakeActor(world, name, api)
        finally:
            await api.close()


class _Handlers:
    def __init__(self, world: World) -> None:
        self._world = world

    def answers(self) -> dict[str, object]:
        return {
            "POST /api/files": self._put,
            "POST /api/fetches": self._fetch,
            "GET /api/transfers/*": self._transfer,
            "GET /api/files/*/content": self._content,
            "GET /api/hops": self._hops,
            "GET /api/stats": self._stats,
            "PUT /api/flags/*": self._flag,
        }

    async def _put(self, request: web.Request) -> web.Response:
        content = await request.read()
        digest = hashlib.sha256(content).hexdigest()
        self._world.contents[digest] = content
        return self._begin(f"put-{digest}", "put", "done", digest, len(content))

    async def _fetch(self, request: web.Request) -> web.Response:
        digest = (await request.json())["link"].removeprefix("swarmbridge:")
        transfer = f"get-{digest}"
        self._world.hops[transfer] = [self._hop("manifest")]
        return self._begin(transfer, "get", "running", digest, len(self._world.contents[digest]))

    def _begin(self, transfer_id: str, kind: str, state: str, digest: str, length: int) -> web.Response:
        self._world.transfers[transfer_id] = Transfer(
            id=transfer_id,
            kind=kind,
            state=state,
            chunks_total=length // CHUNK_BYTES,
            bytes_total=length,
            link=f"swarmbridge:{digest}",
            manifest=digest,
        )
        return json_answer(Started(transfer_id), 202)

    async def _transfer(self, request: web.Request) -> web.Response:
        now = self._world.transfers[request.path.rpartition("/")[2]]
        for _ in range(self._world.chunks_a_poll if now.state == "running" else 0):
            self._move_chunk(now.id)
        return json_answer({**msgspec.to_builtins(now), "somethingNew": 1})

    def _move_chunk(self, transfer_id: str) -> None:
        now = self._world.transfers[transfer_id]
        if now.chunks_done == now.chunks_total:
            self._world.transfers[transfer_id] = msgspec.structs.replace(now, state="done")
            return
        carrier = self._world.carrier()
        self._world.transfers[transfer_id] = msgspec.structs.replace(
            now,
            chunks_done=now.chunks_done + 1,
            bytes_done=now.bytes_done + CHUNK_BYTES,
            by_transport={**now.by_transport, carrier: now.by_transport.get(carrier, 0) + CHUNK_BYTES},
        )
        self._world.hops[transfer_id].append(self._hop(str(now.chunks_done + 1)))

    def _hop(self, delivery: str) -> HopView:
        # What was tried before, where anything was: the transport above the one that carries.
        tried = ORDER[: ORDER.index(self._world.carrier())]
        return HopView(
            delivery=delivery,
            number=1,
            transport=self._world.carrier(),
            outcome="confirmed",
            cause=None,
            started_ms=unix_ms(),
            elapsed_ms=1.0,
            bytes=CHUNK_BYTES,
            fallback_from=tried[-1] if tried else None,
            fallback_cause=self._world.cause if tried else None,
        )

    async def _content(self, request: web.Request) -> web.Response:
        content = self._world.contents[request.path.split("/")[-2]]
        return web.Response(body=content[::-1] if self._world.corrupt else content)

    async def _hops(self, request: web.Request) -> web.Response:
        return json_answer(self._world.hops[request.query["transfer"]])

    async def _stats(self, request: web.Request) -> web.Response:
        return json_answer(Stats(0, None, [_row(name, on) for name, on in self._world.on.items()]))

    async def _flag(self, request: web.Request) -> web.Response:
        if not request.path.endswith("/webTorrentTransport"):
            return problem(404, "not_found", "no such flag")
        enabled = (await request.json())["enabled"]
        self._world.events.append(f"flag {enabled}")
        self._world.on["webtorrent"] = enabled
        return json_answer({})


def _row(name: str, on: bool) -> TransportStats:
    return TransportStats(
        id=name,
        label=name,
        enabled=True,
        state="ready",
        fallback_count=0,
        last_fallback_at=None,
        last_error=None,
        connected_peers=int(on),
        fallback_causes={},
        hops={},
        workers=int(on),
    )
