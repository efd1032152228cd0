"""A node's HTTP API, as much of it as starting and showing nodes needs.

Answers are decoded into structs that ignore what they do not know. Errors become GatewayError with the API's
code; nothing that a gateway says is ever shown as text, since it may name files and links.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from shared.undecodable import UNDECODABLE

REQUEST_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 300.0
READ_BYTES = 1 << 20

T = TypeVar("T")


class GatewayError(Exception):
    """The gateway refused (`code` is its cause or HTTP word) or cannot be reached (`unreachable (why)`)."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class View(msgspec.Struct, rename="camel"):
    """What the API's objects are read into."""


class AddressFile(View):
    """`gateway.json` in a node's home, or a rendezvous' `rendezvous.json`: where a process listens."""

    url: str
    pid: int = 0


class NodeView(View):
    node: str
    peer: str
    name: str
    version: str = ""


class TransferView(View):
    """state: running, done or failed. by_transport: confirmed bytes."""

    id: str
    state: str
    chunks_done: int = 0
    chunks_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    by_transport: dict[str, int] = {}
    cause: str | None = None
    link: str | None = None
    manifest: str | None = None


class AttemptView(View):
    """One hop, as the attempts stream holds it; ids and peers are left out."""

    delivery: str
    number: int
    transport: str
    outcome: str
    cause: str | None
    started_ms: int
    elapsed_ms: float
    bytes: int
    hedged: bool = False
    fallback_from: str | None = None
    fallback_cause: str | None = None
    trace_id: str = ""


class SpanView(View):
    """One span of a trace, of either node."""

    span_id: str
    parent_id: str
    name: str
    service: str
    node: str
    start_ns: int
    end_ns: int
    status: str = "unset"
    attributes: dict[str, str | int | float | bool] = {}


class TransportView(View):
    id: str
    state: str
    enabled: bool = True
    connected_peers: int = 0
    workers: int = 0
    last_error: str | None = None


class _Started(View):
    transfer: str


class _Stats(View):
    transports: list[TransportView]


class _Failure(View):
    code: str = "other"


class _ErrorBody(View):
    error: _Failure


class GatewayClient:
    """Talks to one gateway with the operator's token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        )

    @classmethod
    def of_home(cls, home: Path, token_file: Path | None = None) -> GatewayClient | None:
        """The gateway that runs in this home; None while it has not said where it is."""
        try:
            where = msgspec.json.decode((home / "gateway.json").read_bytes(), type=AddressFile)
            token = (token_file or home / "gateway.token").read_text().strip()
        except (OSError, *UNDECODABLE):
            return None
        return cls(where.url, token)

    async def close(self) -> None:
        await self._session.close()

    async def node(self) -> NodeView:
        return await self._call("GET", "/api/node", NodeView)

    async def transports(self) -> dict[str, TransportView]:
        stats = await self._call("GET", "/api/stats", _Stats)
        return {transport.id: transport for transport in stats.transports}

    async def worker_counts(self) -> dict[str, int]:
        """Workers that have reported, by transport."""
        return {name: transport.workers for name, transport in (await self.transports()).items()}

    async def put(self, source: Path, name: str) -> str:
        """Store a file. Returns: the id of its transfer."""
        with source.open("rb") as file:
            started = await self._call(
                "POST",
                "/api/files",
                _Started,
                params={"name": name, "mime": "application/octet-stream", "class": "shared"},
                data=file,
                timeout=aiohttp.ClientTimeout(total=BODY_TIMEOUT_S),
            )
        return started.transfer

    async def fetch(self, link: str) -> str:
        """Fetch what a link names. Returns: the id of the transfer."""
        return (await self._call("POST", "/api/fetches", _Started, json={"link": link})).transfer

    async def transfer(self, transfer_id: str) -> TransferView:
        return await self._call("GET", f"/api/transfers/{transfer_id}", TransferView)

    async def content_sha256(self, manifest: str) -> str:
        """Read a stored file's whole content. Returns: hex SHA-256 of it."""
        digest = hashlib.sha256()
        async for part in self._content(f"/api/files/{manifest}/content"):
            digest.update(part)
        return digest.hexdigest()

    async def attempts(self, transfer_id: str, limit: int) -> list[AttemptView]:
        """The latest `limit` hops of a transfer."""
        params = {"transfer": transfer_id, "limit": str(limit)}
        return await self._call("GET", "/api/attempts", list[AttemptView], params=params)

    async def spans(self, trace_id: str) -> list[SpanView]:
        """This node's spans of a trace; empty where it has none."""
        try:
            return await self._call("GET", f"/api/traces/{trace_id}", list[SpanView])
        except GatewayError as error:
            if error.code == "not_found":
                return []
            raise

    async def metrics(self) -> str:
        """Prometheus' text."""
        return b"".join([part async for part in self._content("/metrics")]).decode()

    async def set_flag(self, name: str, enabled: bool) -> None:
        await self._call("PUT", f"/api/flags/{name}", dict[str, object], json={"enabled": enabled})

    async def _call(self, method: str, path: str, kind: type[T], **options: Any) -> T:
        try:
            async with self._session.request(method, self.url + path, **options) as response:
                body = await response.read()
                if response.status >= 400:
                    raise GatewayError(_code(body))
            return msgspec.json.decode(body, type=kind)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        except UNDECODABLE:
            raise GatewayError("invalid answer") from None

    async def _content(self, path: str) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(total=BODY_TIMEOUT_S)
        try:
            async with self._session.get(self.url + path, timeout=timeout) as response:
                if response.status >= 400:
                    raise GatewayError(_code(await response.read()))
                async for part in response.content.iter_chunked(READ_BYTES):
                    yield part
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None


def _unreachable(error: Exception) -> GatewayError:
    """By the error's type alone: its text holds the address."""
    return GatewayError(f"unreachable ({type(error).__name__})")


def _code(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.code
    except UNDECODABLE:
        return "other"
