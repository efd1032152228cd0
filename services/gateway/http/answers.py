"""JSON in and out of the HTTP API, by msgspec: structs with camelCase fields, validated on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

T = TypeVar("T")


class ApiStruct(msgspec.Struct, frozen=True, rename="camel"):
    """What the API's JSON objects are made from."""


def json_answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with `body` as JSON. Never cached: everything here is live."""
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json", headers=all_headers
    )
