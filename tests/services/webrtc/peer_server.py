"""A PeerServer for tests: the protocol as docs/peerjs.md has it, on loopback, that can go down and come up again."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import WSMsgType, web

from shared.settings.rendezvous import PeerServer


class FakePeerServer:
    """Relays between registered ids; EXPIRE at once for an unknown one."""

    def __init__(self) -> None:
        self.sockets: dict[str, tuple[str, web.WebSocketResponse]] = {}
        self.relayed: list[dict[str, Any]] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def entry(self) -> PeerServer:
        return PeerServer(f"http://127.0.0.1:{self.port}/")

    async def start(self) -> None:
        """Listen; on the same port as before where it was up once."""
        app = web.Application()
        app.router.add_get("/peerjs", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for _, ws in list(self.sockets.values()):
            await ws.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.sockets.clear()

    async def say(self, peer: str, message: dict[str, Any]) -> None:
        """As if a peer had sent it."""
        await self.sockets[peer][1].send_str(json.dumps(message))

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        peer, token = request.query["id"], request.query["token"]
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        known = self.sockets.get(peer)
        if known is not None and known[0] != token:
            await ws.send_str(json.dumps({"type": "ID-TAKEN", "payload": {"msg": "ID is taken"}}))
            await ws.close()
            return ws
        self.sockets[peer] = (token, ws)
        if known is None:  # a re-attached id gets no OPEN
            await ws.send_str(json.dumps({"type": "OPEN"}))
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await self._relay(peer, json.loads(message.data))
        if self.sockets.get(peer, ("", None))[1] is ws:
            del self.sockets[peer]
        return ws

    async def _relay(self, src: str, message: dict[str, Any]) -> None:
        if message["type"] == "HEARTBEAT":
            return
        self.relayed.append(message)
        target = self.sockets.get(message["dst"])
        if target is None:
            await self.say(src, {"type": "EXPIRE", "src": message["dst"], "dst": src})
        else:
            await target[1].send_str(json.dumps({**message, "src": src}))
