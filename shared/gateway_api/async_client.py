"""The client for programs with an event loop: the blocking one, in threads of its own.

What these programs ask is a request at a time, some tens a second at most: a thread each costs less than a second HTTP
client would, in imports, in code, and in differences between the two.

*Cancellation*: whoever stops waiting leaves its thread to the request's own timeout; `close` ends all of them.
*Back-pressure*: MAX_THREADS requests at a time, more wait.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from shared.gateway_api import calls
from shared.gateway_api.address import read_address, read_token
from shared.gateway_api.calls import Call
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.errors import BrokenOff, GatewayError
from shared.gateway_api.structs import HopView, NodeView, Transfer, TransportStats
from shared.gateway_api.traces import SpanView

MAX_THREADS = 8
READ_BYTES = 1 << 20
DEFAULT_MIME = "application/octet-stream"

T = TypeVar("T")


class AsyncGatewayClient:
    """One gateway. Every failure is a GatewayError."""

    def __init__(self, url: str, token: str) -> None:
        self._client = GatewayClient(url, token)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="gateway-client")

    @classmethod
    def of_home(cls, home: Path, token_file: Path | None = None) -> AsyncGatewayClient | None:
        """The gateway that runs in this home; None while it has not said where it is."""
        address, token = read_address(home), read_token(home, token_file)
        return cls(address.url, token) if address is not None and token else None

    @property
    def url(self) -> str:
        return self._client.url

    async def close(self) -> None:
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, call: Call[T]) -> T:
        """Send a request and read its answer."""
        return await self._in_thread(lambda: self._client.ask(call))

    async def node(self) -> NodeView:
        return await self.ask(calls.node())

    async def transports(self) -> dict[str, TransportStats]:
        """By name."""
        return {transport.id: transport for transport in (await self.ask(calls.stats())).transports}

    async def worker_counts(self) -> dict[str, int]:
        """Workers that have reported, by transport."""
        return {name: transport.workers for name, transport in (await self.transports()).items()}

    async def put(self, source: Path, name: str) -> str:
        """Store a file as `shared`. Returns: the id of its transfer."""

        def upload() -> str:
            with source.open("rb") as file:
                query = calls.upload_query(name, DEFAULT_MIME, "shared")
                parts: Iterator[bytes] = iter(lambda: file.read(READ_BYTES), b"")
                return self._client.upload(query, parts, source.stat().st_size).transfer

        return await self._in_thread(upload)

    async def fetch(self, link: str) -> str:
        """Fetch what a link names. Returns: the id of the transfer."""
        return (await self.ask(calls.fetch(link))).transfer

    async def transfer(self, transfer_id: str) -> Transfer:
        return await self.ask(calls.transfer(transfer_id))

    async def cancel(self, transfer_id: str) -> Transfer:
        return await self.ask(calls.cancel(transfer_id))

    async def content_sha256(self, manifest: str) -> str:
        """Read a stored file's whole content. Returns: hex SHA-256 of it."""

        def read() -> str:
            digest = hashlib.sha256()
            with self._client.download(manifest) as content:
                for part in content.parts:
                    digest.update(part)
            return digest.hexdigest()

        return await self._in_thread(read)

    async def hops(self, transfer_id: str, limit: int) -> list[HopView]:
        """The latest `limit` hops of a transfer."""
        return await self.ask(calls.hops(transfer_id, limit))

    async def spans(self, trace_id: str) -> list[SpanView]:
        """This node's spans of a trace; empty where it has none."""
        try:
            return await self.ask(calls.spans(trace_id))
        except GatewayError as error:
            if error.code == "not_found":
                return []
            raise

    async def metrics(self) -> str:
        """Prometheus' text."""
        return await self._in_thread(lambda: self._client.text("/metrics"))

    async def set_flag(self, name: str, enabled: bool) -> None:
        await self.ask(calls.set_flag(name, enabled))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            future = self._threads.submit(work)
        except RuntimeError:  # of a pool that was shut down
            raise BrokenOff from None
        return await asyncio.wrap_future(future)
