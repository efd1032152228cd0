"""A gateway that answers what a test tells it to, on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

TOKEN = "the-operator's-token"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeGateway:
    """answers: by `METHOD path`; a JSON value, or a handler. bodies: what was sent to each."""

    home: Path
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    token: str = TOKEN

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = f"{request.method} {request.path}"
        self.asked.append((key, dict(request.query)))
        self.headers[key] = dict(request.headers)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "unauthorized", "the token is wrong", "see gateway.token")
        if key not in self.answers:
            return problem(404, "not_found", "there is nothing here")
        answer = self.answers[key]
        if isinstance(answer, list) and answer and answer[0] == "then":
            answer = answer.pop(1) if len(answer) > 2 else answer[1]
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        self.bodies[key] = await request.read()
        return web.json_response(answer)


def problem(status: int, code: str, message: str, hint: str = "") -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "hint": hint}}, status=status)


def then(*answers: Any) -> list[Any]:
    """One answer after the other; the last one stays."""
    return ["then", *answers]


@asynccontextmanager
async def fake_gateway(home: Path) -> AsyncIterator[FakeGateway]:
    gateway = FakeGateway(home)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", gateway.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    (home / "gateway.json").write_text(json.dumps({"url": url, "pid": 1}))
    (home / "gateway.token").write_text(TOKEN + "\n")
    try:
        yield gateway
    finally:
        await runner.cleanup()
