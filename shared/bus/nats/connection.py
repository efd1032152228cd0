"""One connection to a NATS server, renewed indefinitely: the only file that imports nats.

nats-py 2.16 has a reconnect of its own; this does not use it. After a fatal `-ERR` nats-py closes for good, a
frozen server can leave its `close` waiting for a buffer that never empties, and what it had queued is sent
late. So a lost client is given up, a fresh one made, and every `Interest` opened again on it: one path, ours.

Traps of nats-py that end here (docs/nats.md): interest that a flush does not wait for; pending limits that drop in
silence; publishing while disconnected, which raises nothing; denied requests, seen by the error callback only; a
flush whose cancellation kills the reader.

Requests are ours too, not nats-py's: the reply subject of each is new and names caller and server
(`shared.bus.messages.conversations`), and when the connection is lost, those in flight end at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from shared.backoff import delays_s
from shared.bus.messages.conversations import INBOX, inbox, server_of
from shared.bus.nats.client import Client, Msg, TlsClient, add_service, errors
from shared.bus.nats.client import Subscription as NatsSubscription
from shared.bus.serving import BusCounts
from shared.errors import BusError, BusTimeout, BusUnavailable, Cause, NoResponders, SwarmbridgeError
from shared.tasks.ending import end_tasks
from shared.tasks.owned import Tasks
from shared.version import VERSION

CONNECT_TIMEOUT_S = 3.0
PING_INTERVAL_S = 1
"""With MAX_PINGS 2 a frozen server is noticed within 3 s; by default it takes minutes (docs/nats.md)."""

MAX_PINGS = 2
OUTBOUND_BYTES = 16 * 2**20
"""Unsent bytes above which `publish` waits. nats-py's 2 MiB is eight ranges of a body."""

FLUSH_TIMEOUT_S = 5
"""Without it, a publish that waits for a connection lost meanwhile would wait indefinitely. Longer than a frozen server
takes to be noticed: a PONG that comes after its flush timed out ends nats-py's reader."""

INBOUND_MESSAGES = 65_536
INBOUND_BYTES = 64 * 2**20
"""Pending limits of a subscription (docs/limits.md: 64 MiB). Callbacks only start tasks, so little ever waits."""

RENEW_FIRST_S = 0.05
RENEW_CAP_S = 2.0
LOST_POLL_S = 0.25
"""nats-py marks a client closed before it says so, and may never come to say so."""

SCHEMES = ("nats", "tls")
"""nats-py also takes ws and wss, for which it would load an HTTP client."""

CLOSE_TIMEOUT_S = 2.0
MAX_FLUSHES = 3
INBOX_BYTES = 12
"""Of the random part of a reply's subject: nobody else can guess one and answer in the server's stead."""

NO_RESPONDERS = "503"
MAX_ANSWERS = 1024
"""Answers to one request that wait for whoever asked."""


OnMessage = Callable[[str, bytes, str, Mapping[str, str] | None], None]
"""(subject, data, reply, headers). Synchronous and quick; headers None where there are none."""

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """url: one or several, separated by commas. seed: nkey seed of the user. service: the process's, "" = none of ours.

    announce: its name in NATS micro, "" = none. ca_file: PEM of the one authority to trust, "" = the system's.
    """

    url: str
    name: str
    seed: str | None = None
    service: str = ""
    announce: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request. headers None where there are none."""

    data: bytes
    headers: Mapping[str, str] | None

    @property
    def status(self) -> str:
        """The server's own word on a request (`503`, `404`, `204`), "" where a process or JetStream answered."""
        return "" if self.data else header(self.headers, "Status")


class Owned(Protocol):
    """What ends with the connection."""

    async def close(self) -> None: ...


class Interest:
    """One subscription, opened again on each renewed connection."""

    def __init__(self, connection: NatsConnection, subject: str, on_message: OnMessage, queue: str) -> None:
        self._connection = connection
        self.subject = subject
        self._on_message = on_message
        self._queue = queue
        self._client: Client | None = None
        self._subscription: NatsSubscription | None = None

    async def open(self, client: Client) -> None:
        async def callback(message: Msg) -> None:
            self._on_message(message.subject, message.data, message.reply, message.headers)

        self._client = client
        self._subscription = await client.subscribe(
            self.subject,
            queue=self._queue,
            cb=callback,
            pending_msgs_limit=INBOUND_MESSAGES,
            pending_bytes_limit=INBOUND_BYTES,
        )

    async def close(self) -> None:
        """When this returns no new message reaches us, and all that had reached us was handed on."""
        # First: a renewal in the meantime must not open it again.
        self._connection.forget(self)
        client, subscription = self._client, self._subscription
        self._client = self._subscription = None
        if client is None or subscription is None or client.is_closed:
            return
        try:
            # Not Subscription.drain(): its flush has the interest race; not unsubscribe(): it discards.
            await client._send_unsubscribe(subscription._id)
            await self._connection.settle(client)
            # Behind the round trip: what the server had sent us by then has been handed on.
            await subscription.unsubscribe()
        except (errors.Error, OSError, TimeoutError) as error:
            log.debug("unsubscribing: %s", type(error).__name__)


class NatsConnection:
    """Owns the client and its renewal.

    Cancellation: cancelling a request forgets it. Back-pressure: `publish` waits above OUTBOUND_BYTES.
    """

    def __init__(self, options: ConnectionOptions, counts: BusCounts) -> None:
        self._options = options
        self._counts = counts
        self._client: Client | None = None
        self._interests: dict[Interest, None] = {}
        self._denied: set[str] = set()
        self._on_renewed: list[Callable[[], None]] = []
        self._tasks = Tasks(lambda task: self.on_crash(task))
        self._owned: dict[Owned, None] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()
        self._flushing: set[asyncio.Task[None]] = set()
        self._inbox = os.urandom(INBOX_BYTES).hex()
        self._waiting: dict[str, Callable[[Answer | None], None]] = {}
        self.on_lost: Callable[[str], None] = lambda name: None
        """Called with the name of a bucket or stream that was lost and made again, by whoever reads it."""
        self.on_crash: Callable[[str], None] = lambda task: None
        """Called with a task's name when one that keeps the connection has died: the process can only end."""

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def open(self) -> None:
        """Connect once.

        Raises: BusUnavailable, BusTimeout: nothing answers; BusError: FORBIDDEN where the server refuses the user,
            MISCONFIGURED for a URL that is none, UNAUTHENTICATED for its certificate.
        """
        self._client = await self._connect()
        self._tasks.start(self._renew_forever(), name="nats connection")
        try:
            await self.subscribe(f"{inbox(self._options.service, '*')}.{self._inbox}.*", self._receive_answer)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close what it owns, then the client."""
        # While there is a connection: readers unsubscribe on it.
        for owned in list(self._owned):
            await owned.close()
        await self._tasks.close()
        self._give_up_requests()
        client, self._client = self._client, None
        if client is not None:
            await _end(client)
        await end_tasks([*self._ending, *self._flushing])

    def own(self, owned: Owned) -> None:
        """Close it, at the latest, when the connection is closed."""
        self._owned[owned] = None

    def disown(self, owned: Owned) -> None:
        self._owned.pop(owned, None)

    def on_renewed(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each renewal. Returns: what stops that."""
        self._on_renewed.append(callback)
        return lambda: self._on_renewed.remove(callback) if callback in self._on_renewed else None

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Raises: BusUnavailable while disconnected; SwarmbridgeError(TOO_LARGE)."""
        try:
            await self._ready().publish(subject, data, reply, dict(headers) if headers else None)
        except (errors.Error, OSError) as error:
            raise _translated(error) from error

    async def request(
        self, subject: str, data: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The first answer.

        Raises: NoResponders, BusTimeout, BusUnavailable (also when the connection is lost with the request in
            flight: it may have been handled); SwarmbridgeError(TOO_LARGE).
        """
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        token, reply = self._new_reply(subject)
        # Before it is published: the answer may be here before `publish` returns. Only the first one counts.
        self._waiting[token] = lambda received: None if answer.done() else answer.set_result(received)
        try:
            await self.publish(subject, data, reply, headers)
            async with asyncio.timeout(timeout_s):
                return _checked(await answer)
        except TimeoutError:
            raise BusTimeout("no answer in time") from None
        finally:
            del self._waiting[token]

    async def request_many(self, subject: str, data: bytes, timeout_s: float) -> AsyncGenerator[Answer, None]:
        """Every answer, for as long as the caller takes them; each within timeout_s of the one before.

        Back-pressure: at most MAX_ANSWERS wait; the request must not ask for more. Raises: as `request`.
        Cancellation: wrap in `contextlib.aclosing`.
        """
        answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        token, reply = self._new_reply(subject)
        # More than were asked for are dropped: nobody may fill our memory by answering.
        self._waiting[token] = lambda received: answers.put_nowait(received) if answers.qsize() < MAX_ANSWERS else None
        try:
            await self.publish(subject, data, reply)
            while True:
                try:
                    async with asyncio.timeout(timeout_s):
                        answer = await answers.get()
                except TimeoutError:
                    raise BusTimeout("no answer in time") from None
                yield _checked(answer)
        finally:
            del self._waiting[token]

    def _new_reply(self, subject: str) -> tuple[str, str]:
        token = os.urandom(INBOX_BYTES).hex()
        return token, f"{inbox(self._options.service, server_of(subject))}.{self._inbox}.{token}"

    def _receive_answer(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        # By its last token: one subscription hears the answers to all requests.
        receive = self._waiting.get(subject.rpartition(".")[2])
        if receive is not None:
            receive(Answer(data, headers))

    def _give_up_requests(self) -> None:
        """What was asked on a connection that is gone is answered by nobody."""
        for receive in list(self._waiting.values()):
            receive(None)

    async def subscribe(self, subject: str, on_message: OnMessage, queue: str = "") -> Interest:
        """When this returns, what anyone sends to `subject` reaches us.

        Raises: BusUnavailable; BusError(FORBIDDEN) where our user may not.
        """
        interest = Interest(self, subject, on_message, queue)
        client = self._ready()
        # Before it is open: a renewal while we wait opens it again instead of losing it.
        self._interests[interest] = None
        try:
            await interest.open(client)
            await self.settle(client)
        except (errors.Error, OSError, TimeoutError) as error:
            await interest.close()
            raise _translated(error) from error
        # The server has it, or will: without this it would send us messages that nobody takes.
        except asyncio.CancelledError:
            await interest.close()
            raise
        # A denial comes as an error of the connection, ahead of the PONG that `settle` waited for.
        if subject.lower() in self._denied:
            self._denied.discard(subject.lower())
            self.forget(interest)
            raise BusError(Cause.FORBIDDEN, "this user may not subscribe to that")
        return interest

    def forget(self, interest: Interest) -> None:
        self._interests.pop(interest, None)

    async def flush(self) -> None:
        """Wait until the server has handled all that we sent."""
        try:
            await self.settle(self._ready())
        except (errors.Error, OSError, TimeoutError) as error:
            raise _translated(error) from error

    async def settle(self, client: Client) -> None:
        """A round trip behind everything queued. A cancelled caller leaves it running: nats-py's reader dies of
        the PONG for a flush that was cancelled, and the connection is deaf from then on."""
        flushing = asyncio.create_task(_flush(client))
        self._flushing.add(flushing)
        flushing.add_done_callback(self._flushed)
        await asyncio.shield(flushing)

    def _flushed(self, flushing: asyncio.Task[None]) -> None:
        self._flushing.discard(flushing)
        _ = flushing.cancelled() or flushing.exception()  # read, so that asyncio does not report it

    def _ready(self) -> Client:
        if self._client is None or not self._client.is_connected:
            raise BusUnavailable("not connected")
        return self._client

    async def _connect(self) -> Client:
        urls = checked_urls(self._options.url)
        tls = _tls(self._options.ca_file)
        # An event of each client's own: an old one that closes late must not end the new one.
        client, lost = TlsClient() if any(url.startswith("tls:") for url in urls) else Client(), asyncio.Event()

        async def on_closed() -> None:
            lost.set()

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    urls,
                    name=self._options.name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT_S,  # type: ignore[arg-type]  # seconds; a float works
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=MAX_PINGS,
                    pending_size=OUTBOUND_BYTES,
                    flush_timeout=FLUSH_TIMEOUT_S,
                    nkeys_seed_str=self._options.seed,
                    tls=tls,
                    error_cb=self._note,
                    closed_cb=on_closed,
                )
                if self._options.announce:
                    await add_service(
                        client,
                        name=self._options.announce,
                        version=VERSION,
                        metadata={"instance": self._options.name},
                    )
        except (errors.Error, OSError, TimeoutError) as error:
            await _end(client)
            raise _translated(error) from error
        self._lost = lost
        return client

    async def _renew_forever(self) -> None:
        while True:
            await self._until_lost()
            # From here on `_ready` raises: nothing is written into a buffer that is never sent.
            old, self._client = self._client, None
            self._give_up_requests()
            if old is not None:
                # Beside us: a frozen server holds its close up for CLOSE_TIMEOUT_S, which nobody need wait out.
                ending = asyncio.create_task(_end(old))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            log.warning("connection to the bus lost")
            for delay_s in delays_s(RENEW_FIRST_S, RENEW_CAP_S):
                if await self._renew():
                    break
                await asyncio.sleep(delay_s)
            self._counts.reconnects += 1
            log.warning("connected to the bus again, %d times so far", self._counts.reconnects)
            # A copy: a listener may stop listening when it is called.
            for callback in list(self._on_renewed):
                try:
                    callback()
                except Exception as error:  # one listener's bug must not leave the others, and us, without a connection
                    log.error("a listener of reconnects raised %s", type(error).__name__)

    async def _until_lost(self) -> None:
        while self._client is not None and not self._client.is_closed:
            try:
                async with asyncio.timeout(LOST_POLL_S):
                    await self._lost.wait()
                    return
            except TimeoutError:
                continue

    async def _renew(self) -> bool:
        try:
            client = await self._connect()
        except BusError as error:
            log.debug("connecting again: %s", error.cause)
            return False
        self._client = client  # before the interests: handlers of their first messages reply through it
        try:
            for interest in list(self._interests):
                await interest.open(client)
            await self.settle(client)
        except (errors.Error, OSError, TimeoutError) as error:
            log.debug("restoring interest: %s", type(error).__name__)
            # Half restored is not connected: some subjects would be deaf, and nobody would know which.
            self._client = None
            await _end(client)
            return False
        return True

    async def _note(self, error: Exception) -> None:
        """nats-py's error callback: alarms are counted, texts stay out of the log (they hold subjects)."""
        if isinstance(error, errors.SlowConsumerError):
            self._counts.slow_consumer += 1
            log.error("slow consumer: a message was dropped, %d so far", self._counts.slow_consumer)
            return
        denied = _DENIED.search(str(error))
        if denied is None:
            log.debug("bus client: %s", type(error).__name__)
            return
        self._counts.denied += 1
        kind, subject = denied[1].lower(), denied[2].lower()  # nats-py lowers the text; not all versions may
        if kind == "subscription":
            self._denied.add(subject)
        log.error("the bus denied a %s to %s, %d so far", kind, kind_of(subject), self._counts.denied)


def _checked(answer: Answer | None) -> Answer:
    if answer is None:
        raise BusUnavailable("the connection was lost before the answer came")
    if answer.status == NO_RESPONDERS:
        raise NoResponders("nobody serves this")
    return answer


async def _flush(client: Client) -> None:
    """A round trip behind everything queued.

    nats-py writes PING at once, but what was queued before it only when its flusher runs: 2-7 % of requests
    after `subscribe(); flush()` met a false 503 (docs/nats.md). So: let it run, and go round again if it had not.
    """
    for _ in range(MAX_FLUSHES):
        await asyncio.sleep(0)
        unsent = client.pending_data_size > 0
        await client.flush(timeout=FLUSH_TIMEOUT_S)
        if not unsent:
            return


async def _end(client: Client) -> None:
    """Close a client without waiting for a server that does not listen."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.close()
    except Exception as error:
        log.debug("closing: %s", type(error).__name__)


def kind_of(subject: str) -> str:
    """The words of a subject without the names in it: those may hold keys and hashes."""
    parts = subject.split(".")
    if parts[0] == "sb":
        # Words after `sb.N` that are ours and may be logged; what follows them is a peer, a hash or an instance.
        named = {"link": 2, "dial": 2, "inbound": 2, "hop": 2, "route": 2, "chunk": 2, "identity": 2, "signal": 2}
        return ".".join(["sb", "N", *parts[2:][: named.get(parts[2] if len(parts) > 2 else "", 1)]])
    return ".".join(parts[: {"$KV": 2, "$JS": 3, "$SRV": 2, INBOX: 3}.get(parts[0], 1)])


def checked_urls(text: str) -> list[str]:
    """The servers in `bus.url`. Raises: BusError(MISCONFIGURED), naming what is wrong without repeating the URL."""
    urls = [url.strip() for url in text.split(",")]
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            usable = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise BusError(Cause.MISCONFIGURED, "its address is no NATS URL; write nats://HOST:PORT or tls://HOST:PORT")
    return urls


def _tls(ca_file: str) -> ssl.SSLContext | None:
    """Whom to trust; None leaves that to the system's authorities.

    Raises: BusError(MISCONFIGURED): the file cannot be read, or holds no certificate.
    """
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:  # SSLError is one
        raise BusError(Cause.MISCONFIGURED, "bus.ca_file cannot be read, or holds no certificate in PEM") from None


def _translated(error: BaseException) -> SwarmbridgeError:
    """nats-py's errors and the system's in ours. The texts are for a person who starts a node: a sentence a reason."""
    # In this order: the classes of nats-py overlap, and the first that fits is the most exact.
    if isinstance(error, errors.MaxPayloadError):
        return SwarmbridgeError(Cause.TOO_LARGE, "over the bus's message size")
    if isinstance(error, (errors.AuthorizationError, errors.Error)) and "authorization violation" in str(error).lower():
        return BusError(Cause.FORBIDDEN, "it refuses our user; see bus.seed_file, and whose accounts the server has")
    if isinstance(error, ssl.SSLError):
        return BusError(Cause.UNAUTHENTICATED, "its TLS certificate cannot be verified, or it speaks no TLS")
    if isinstance(error, socket.gaierror):
        return BusUnavailable("its host name cannot be resolved")
    if isinstance(error, TimeoutError):
        return BusTimeout("no answer in time")
    if isinstance(error, (errors.NoServersError, ConnectionRefusedError)):
        return BusUnavailable("nothing takes connections at its address, or its host name cannot be resolved")
    return BusUnavailable("not connected")


def header(headers: Mapping[str, Any] | None, name: str) -> str:
    """A header's value, "" where there is none."""
    return str(headers.get(name, "")) if headers else ""
