"""The gateway's HTTP API as the CLI uses it. The only module here that speaks HTTP.

*Cancellation*: leaving the context closes every connection. *Back-pressure*: uploads and downloads stream.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

from services.cli import exit_codes
from services.cli.daemon import Daemon
from services.cli.failures import CliFailure

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 15.0
# A stream may stand still for this long before it counts as lost.
STALL_TIMEOUT_S = 90.0
POLL_INTERVAL_S = 0.15
KEY_HEADER = "X-Swarmbridge-Key"
READ_BYTES = 256 * 1024

T = TypeVar("T")
Json = dict[str, Any]


_ENDS = {
    "refused": (
        "no holder has it, or those who have it keep it for the members of their mesh",
        "take a fresh link; or give their operator your token (`swarmbridge peers --self`) for `trust.members`",
    ),
    "store_full": ("the node's store has no room for it", "do `swarmbridge rm`, or raise chunk.quota_bytes"),
    "disk_full": ("the disk under the node's store is full", "free space on it, or move chunk.store"),
    "store_failed": ("the node's store cannot be used", "see the chunk service's log"),
}
"""How a transfer ended for a reason that is no transport's: by cause, what happened and what to do."""


class Api:
    """One running node. Every failure is a CliFailure with the fitting exit code."""

    def __init__(self, daemon: Daemon) -> None:
        self._url = daemon.url
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {daemon.token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S),
            trust_env=False,  # a proxy has no business between us and our own node
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> Any:
        """A view: an object or a list."""
        return await self._json("GET", path, params=query)

    async def post(self, path: str, body: Json) -> Any:
        return await self._json("POST", path, json=body)

    async def put(self, path: str, body: Json) -> Any:
        return await self._json("PUT", path, json=body)

    async def delete(self, path: str) -> Any:
        return await self._json("DELETE", path)

    async def upload(self, body: AsyncIterator[bytes], length: int, **query: str) -> str:
        """POST /api/files. Returns: the transfer's id, once the node has all bytes."""
        answer = await self._json(
            "POST",
            "/api/files",
            params=query,
            data=body,
            headers={"Content-Length": str(length), "Content-Type": "application/octet-stream"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S),
        )
        return str(answer["transfer"])

    @asynccontextmanager
    async def download(self, digest: str, key: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """GET the plain bytes of a stored file: (length, parts). key: base64url, "" for none.

        Raises: CliFailure also while reading, where the node cuts the stream short.
        """
        async with self._asked(
            "GET",
            f"/api/files/{digest}/content",
            headers={KEY_HEADER: key} if key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S),
        ) as response:
            yield response.content_length or 0, response.content.iter_chunked(READ_BYTES)

    async def finished(self, transfer_id: str, on_change: Callable[[Json], None]) -> Json:
        """Follow a transfer to its end, telling `on_change` of each state. Raises: CliFailure when it failed."""
        while True:
            transfer: Json = await self.get(f"/api/transfers/{transfer_id}")
            on_change(transfer)
            if transfer["state"] == "done":
                return transfer
            if transfer["state"] == "failed":
                cause = str(transfer.get("cause") or "other")
                words = f"the transfer failed: {cause}", f"see `swarmbridge why {transfer_id}`"
                raise CliFailure(cause, *_ENDS.get(cause, words))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        async with self._asked(method, path, **options) as response:
            return await response.json()

    @asynccontextmanager
    async def _asked(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self._url + path, allow_redirects=False, **options) as response:
                if response.status >= 300:
                    raise await _failure(response, self._url)
                yield response
        except aiohttp.ClientConnectorError:
            raise CliFailure(
                "not_running", f"no node answers at {self._url}", "do `swarmbridge up`", exit_codes.NOT_RUNNING
            ) from None
        except (aiohttp.ContentTypeError, ValueError):
            raise _no_gateway(self._url) from None
        except (aiohttp.ClientError, ConnectionError):
            raise CliFailure("closed", "the node broke off the connection", "see whether it still runs") from None
        except TimeoutError:
            raise CliFailure("timeout", "the node did not answer in time", "see whether it still runs") from None


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's coroutine; SIGTERM ends it as Ctrl-C does, so that nothing half-written stays behind."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work()

    try:
        return asyncio.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise CliFailure("interrupted", "interrupted", exit_code=exit_codes.INTERRUPTED) from None


async def _failure(response: aiohttp.ClientResponse, url: str) -> CliFailure:
    try:
        error = (await response.json())["error"]
        code, message, hint = str(error["code"]), str(error["message"]), str(error["hint"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        return _no_gateway(url)
    refused = response.status == 401 or code == "rate_limited"
    return CliFailure(code, message, hint, exit_codes.REFUSED if refused else exit_codes.FAILED)


def _no_gateway(url: str) -> CliFailure:
    return CliFailure("invalid", f"what answers at {url} is no swarmbridge gateway", "see --url")
