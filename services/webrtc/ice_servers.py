"""STUN and TURN servers of the rendezvous document: which of them answer, and since when.

Each is asked on its own, whether or not anybody dials, so that no dial ever waits for one that is silent: a link is
opened with those that answer, and without the others. One that answers is asked again every CHECK_EVERY_S; one that
does not after a back-off of its own. Being asked is no trust: what a server says about addresses is checked by ICE.

Cancellation: `run` ends every question with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from shared.bus.messages.records import MeetingPlace
from shared.clock import Clock, unix_ms
from shared.errors import Cause
from shared.settings.rendezvous import IceServer
from shared.tasks.owned import Tasks
from shared.wire.stun import ALLOCATE, BINDING, TRANSACTION_BYTES, encode_request, is_answer

ANSWER_WITHIN_S = 0.5
"""Of one question; a server whose answers take longer would hold up every dial."""
QUESTIONS = 3
"""Datagrams may be lost: so many are sent until a server counts as silent."""
CONNECT_WITHIN_S = 2.0
CHECK_EVERY_S = 10.0
RETRY_FIRST_S = 1.0
RETRY_CAP_S = 60.0
DEFAULT_PORTS = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}
"""RFC 7064 and 7065."""

OPEN, CONNECTING, WAITING = "open", "connecting", "waiting"

_URL = re.compile(r"(stuns?|turns?):([^?:]+)(?::([0-9]+))?(?:\?transport=(udp|tcp))?")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """urls: those that answered when last asked. since, retry_at: of our clock."""

    since: float
    state: str = CONNECTING
    cause: Cause | None = None
    urls: tuple[str, ...] = ()
    retry_at: float = 0.0
    delay_s: float = RETRY_FIRST_S
    asking: asyncio.Task[None] | None = field(default=None)


class IceServers:
    """Driven by `run` and, when the document changes, `reload`. servers: those of the document, usable ones only."""

    def __init__(self, servers: Callable[[], list[IceServer]], clock: Clock, on_change: Callable[[], None]) -> None:
        self._servers = servers
        self._clock = clock
        self._on_change = on_change
        self._watched: dict[IceServerKey, _Watched] = {}
        self._tasks = Tasks()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                self._wake.clear()
                due_s = self._ask_due()
                try:
                    async with asyncio.timeout(due_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            await self._tasks.close()
            self._watched.clear()

    def reload(self) -> None:
        """The document has changed."""
        self._wake.set()

    def answering(self) -> tuple[IceServer, ...]:
        """What a link may be opened with: servers that answer, each with those of its URLs that do."""
        found = []
        for server in self._servers():
            watched = self._watched.get(_key(server))
            if watched is not None and watched.urls:
                found.append(msgspec.structs.replace(server, urls=list(watched.urls)))
        return tuple(found)

    def place(self, server: IceServer, index: int) -> MeetingPlace:
        """How a server does, for people."""
        watched = self._watched.get(_key(server))
        if watched is None:
            return MeetingPlace("iceServers", index, CONNECTING)
        now, now_ms = self._clock(), unix_ms()
        since_ms = now_ms - round((now - watched.since) * 1000)
        retry_ms = now_ms + round((watched.retry_at - now) * 1000) if watched.state == WAITING else 0
        return MeetingPlace("iceServers", index, watched.state, watched.cause, since_ms, retry_ms)

    # ── within ──

    def _ask_due(self) -> float | None:
        """Ask whoever is due. Returns: seconds until the next one is; None = nobody will be."""
        now = self._clock()
        servers = {_key(server): server for server in self._servers()}
        for key in [key for key in self._watched if key not in servers]:
            gone = self._watched.pop(key)
            if gone.asking is not None:
                gone.asking.cancel()
        next_at: float | None = None
        for key, server in servers.items():
            # By its URLs and credentials: a document that is read again does not begin every back-off again.
            watched = self._watched.setdefault(key, _Watched(now))
            if watched.asking is not None:
                continue
            if watched.retry_at <= now:
                watched.asking = self._tasks.start(self._ask(server, watched), name="ice-server")
            else:
                next_at = min(watched.retry_at, next_at or watched.retry_at)
        return None if next_at is None else max(0.0, next_at - now)

    async def _ask(self, server: IceServer, watched: _Watched) -> None:
        try:
            causes = await asyncio.gather(*(_why_silent(url) for url in server.urls))
            self._note(watched, [url for url, cause in zip(server.urls, causes, strict=True) if cause is None], causes)
        finally:
            watched.asking = None
            self._wake.set()

    def _note(self, watched: _Watched, urls: list[str], causes: list[Cause | None]) -> None:
        now = self._clock()
        before = watched.state, watched.cause
        watched.urls = tuple(urls)
        if urls:
            watched.state, watched.cause = OPEN, None
            watched.delay_s, watched.retry_at = RETRY_FIRST_S, now + CHECK_EVERY_S
        else:
            watched.state, watched.cause = WAITING, next((cause for cause in causes if cause is not None), Cause.SILENT)
            watched.retry_at = now + watched.delay_s
            watched.delay_s = min(2 * watched.delay_s, RETRY_CAP_S)
        if before != (watched.state, watched.cause):
            watched.since = now
            log.info("an ICE server is %s: %s", watched.state, watched.cause.value if watched.cause else "it answers")
            self._on_change()


IceServerKey = tuple[tuple[str, ...], str, str]


def _key(server: IceServer) -> IceServerKey:
    return tuple(server.urls), server.username, server.credential


async def _why_silent(url: str) -> Cause | None:
    """Ask one URL. Returns: None where it answers, else the cause."""
    match = _URL.fullmatch(url)
    if match is None:
        return Cause.MISCONFIGURED
    scheme, host, port, transport = match[1], match[2], int(match[3] or DEFAULT_PORTS[match[1]]), match[4]
    # A TURN server is asked as one: that it answers a binding does not show that it relays.
    method = ALLOCATE if scheme.startswith("turn") else BINDING
    try:
        if transport == "tcp" or scheme.endswith("s"):
            return await _ask_stream(host, port, method, secure=scheme.endswith("s"))
        return await _ask_datagrams(host, port, method)
    except (OSError, ssl.SSLError):
        return Cause.REFUSED
    except UnicodeError:  # what idna refuses in a name
        return Cause.MISCONFIGURED
    except TimeoutError:
        return Cause.SILENT


class _Answer(asyncio.DatagramProtocol):
    """Waits for one datagram that answers."""

    def __init__(self, method: int, transaction: bytes) -> None:
        self._method, self._transaction = method, transaction
        self.done: asyncio.Future[Cause | None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.done.done() and is_answer(data, self._method, self._transaction):
            self.done.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.done.done():
            self.done.set_result(Cause.REFUSED)  # the machine says that nobody listens there


async def _ask_datagrams(host: str, port: int, method: int) -> Cause | None:
    transaction = os.urandom(TRANSACTION_BYTES)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_WITHIN_S):  # a name may have to be looked up
        transport, answer = await loop.create_datagram_endpoint(
            lambda: _Answer(method, transaction), remote_addr=(host, port)
        )
    try:
        for _ in range(QUESTIONS):
            # The same transaction each time: a late answer to the first question counts.
            transport.sendto(encode_request(method, transaction))
            done, _ = await asyncio.wait({answer.done}, timeout=ANSWER_WITHIN_S)
            if done:
                return answer.done.result()
        return Cause.SILENT
    finally:
        transport.close()


async def _ask_stream(host: str, port: int, method: int, *, secure: bool) -> Cause | None:
    transaction = os.urandom(TRANSACTION_BYTES)
    async with asyncio.timeout(CONNECT_WITHIN_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=secure or None)
        try:
            writer.write(encode_request(method, transaction))
            head = await reader.readexactly(20)
        except asyncio.IncompleteReadError:
            return Cause.REFUSED
        finally:
            writer.close()
    return None if is_answer(head, method, transaction) else Cause.INVALID
