"""A gateway that answers what a test tells it to, on loopback: the one that every test of a client of it uses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from shared.gateway_api.proof import PROOF_PATH, proof_of
from shared.gateway_api.structs import ProofView

TOKEN = "the-operator's-token"
PROOF_KEY = "known to whoever can read gateway.json"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeGateway:
    """answers: by `METHOD path`, where `*` in a path stands for anything; JSON, one of the API's structs, or a handler.

    asked: what was, in order, with its query. bodies, headers: what was sent to each last.
    """

    home: Path
    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    token: str = TOKEN

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = f"{request.method} {request.path}"
        if request.path == PROOF_PATH:
            return self.prove(request)
        self.asked.append((key, dict(request.query)))
        self.headers[key] = dict(request.headers)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "unauthorized", "the token is wrong", "see gateway.token")
        known = key if key in self.answers else next((name for name in self.answers if fnmatchcase(key, name)), None)
        if known is None:
            return problem(404, "not_found", "there is nothing here")
        answer = self.answers[known]
        if isinstance(answer, list) and answer and answer[0] == "then":
            answer = answer.pop(1) if len(answer) > 2 else answer[1]
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        self.bodies[key] = await request.read()
        return json_answer(answer)

    def prove(self, request: web.Request) -> web.Response:
        """As the home's gateway does; no token must come with the question."""
        assert "Authorization" not in request.headers
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[:2]
        return json_answer(ProofView(proof_of(PROOF_KEY, request.query["nonce"], address)))


def json_answer(body: Any, status: int = 200) -> web.Response:
    """As the gateway encodes it."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def problem(status: int, code: str, message: str, hint: str = "") -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "hint": hint}}, status=status)


def then(*answers: Any) -> list[Any]:
    """One answer after the other; the last one stays."""
    return ["then", *answers]


@asynccontextmanager
async def fake_gateway(home: Path) -> AsyncIterator[FakeGateway]:
    """Listen on a port of its own, and leave address and token in `home`."""
    gateway = FakeGateway(home)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", gateway.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    (home / "gateway.json").write_text(json.dumps({"url": gateway.url, "pid": 1, "proof": PROOF_KEY}))
    (home / "gateway.token").write_text(TOKEN + "\n")
    try:
        yield gateway
    finally:
        await runner.cleanup()
