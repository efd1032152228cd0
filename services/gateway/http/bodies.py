"""JSON bodies of requests, validated on the way in."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from services.gateway.http import limits
from services.gateway.http.problems import ApiProblem, invalid
from shared.undecodable import UNDECODABLE

T = TypeVar("T")


async def json_request(request: web.Request, kind: type[T]) -> T:
    """The request's body as `kind`; at most limits.MAX_JSON_BYTES (the application's client_max_size).

    Raises: ApiProblem, 400 `invalid`; 408 `timeout` where it is not here in limits.JSON_TIMEOUT_S.
    """
    try:
        async with asyncio.timeout(limits.JSON_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise ApiProblem(408, "timeout", "the body did not come", "send it right after the headers") from None
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE:
        raise invalid("the body is not the JSON this address takes", "see services/gateway/README.md") from None
