"""The page: the files of `static/`, read once from the package, served with a strict policy and no data."""

from __future__ import annotations

import hashlib
from importlib import resources

from aiohttp import web
from aiohttp.typedefs import Handler

PACKAGE = "services.gateway"
INDEX = "index.html"
TRY_PAGE = "try.html"
"""Its route needs a policy of its own (`services.gateway.api.try_page`)."""
CONTENT_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


def page_routes() -> list[web.RouteDef]:
    """`/` and `/static/<file>` for every file of the folder, TRY_PAGE apart; no path of a request reaches the disk."""
    routes = []
    for entry in resources.files(PACKAGE).joinpath("static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in CONTENT_TYPES and entry.name != TRY_PAGE:
            path = "/" if entry.name == INDEX else f"/static/{entry.name}"
            routes.append(web.get(path, _serve(entry.read_bytes(), CONTENT_TYPES[suffix])))
    return routes


def page_handler(name: str) -> Handler:
    """One page of the folder, for a route elsewhere."""
    return _serve(resources.files(PACKAGE).joinpath("static", name).read_bytes(), CONTENT_TYPES[".html"])


def _serve(body: bytes, content_type: str) -> Handler:
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    # no-cache: asked for each time, sent only when changed, so that page and API are of one version.
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def handler(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return handler
