"""The API's one client: blocking, on `http.client` of the standard library.

Blocking, because a command of the CLI asks once or twice and ends: an event loop and an HTTP library would be most of
what it costs. Whoever has a loop uses `async_client`, which executes the same calls in threads.

*Threads*: any number may share a client; each request has a connection to itself. *Cancellation*: `close` ends every
connection, and with it whatever another thread waits for. *Back-pressure*: uploads and downloads stream.
"""

from __future__ import annotations

import hmac
import http.client
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from shared.gateway_api.calls import KEY_HEADER, Call, content_path
from shared.gateway_api.errors import BrokenOff, GatewayError, NoGateway, NotOurs, NotRunning, Refused, TimedOut
from shared.gateway_api.proof import PROOF_PATH, new_nonce, proof_of
from shared.gateway_api.structs import ProblemBody, ProofView, Started
from shared.undecodable import UNDECODABLE

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 15.0
"""Between two pieces of an answer."""
STALL_TIMEOUT_S = 90.0
"""A body may stand still for this long before it counts as lost."""
READ_BYTES = 256 * 1024
MAX_IDLE = 4
"""Connections kept for the next request."""
MAX_PROOF_BYTES = 4096
"""Whoever answers is a stranger so far."""
OK_STATUS = 200
FIRST_ERROR_STATUS = 300
"""Redirects too: the API has none, and a token must not follow one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Download:
    """length: what was announced, in bytes. parts: the bytes; reading raises GatewayError where they are cut short."""

    length: int
    parts: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class _Request:
    """timeout_s: between two pieces of the answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float


class GatewayClient:
    """Talks to one gateway with the operator's token. Every failure is a GatewayError, that of a bad `url` too.

    proof_key: what a gateway must prove that it knows, on each connection, before the token goes over it (proof.py);
    None where its user asked for the token to be sent there, "" where there should be one and is none.
    """

    def __init__(self, url: str, token: str, proof_key: str | None = None) -> None:
        self._proof_key = proof_key
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._secure = parts.scheme == "https"
        try:
            self._host, self._port, self._prefix = parts.hostname or "", parts.port, parts.path
        except ValueError:  # a port over 65535
            raise NoGateway(self.url) from None
        self._headers = {"Authorization": f"Bearer {token}"}
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection, those in use by other threads too."""
        with self._lock:
            self._closed = True
            connections, self._open = list(self._open), set()
            self._idle.clear()
        for connection in connections:
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in recv; close alone does not
            connection.close()

    def ask(self, call: Call[T], timeout_s: float = ANSWER_TIMEOUT_S) -> T:
        """Send a request and read its answer."""
        path = call.path + (f"?{urlencode(call.query)}" if call.query else "")
        headers = {"Content-Type": "application/json"} if call.body is not None else {}
        with self._exchange(_Request(call.method, path, headers, call.body, timeout_s)) as response:
            body = self._whole(response)
        return self._decoded(body, call.answer)

    def text(self, path: str) -> str:
        """What is at `path`, as text: `/metrics`."""
        with self._exchange(_Request("GET", path, {}, None, ANSWER_TIMEOUT_S)) as response:
            return self._whole(response).decode(errors="replace")

    def upload(self, query: Mapping[str, str], body: Iterable[bytes], length: int | None) -> Started:
        """POST /api/files. query: see `calls.upload_query`. length: of all of body; None where nobody knows.

        What `body` raises goes to the caller as it is: it is the caller's own fault and not the node's.
        """
        connection = self._connection()
        try:
            with self._translated():
                self._connect(connection, STALL_TIMEOUT_S)
                connection.putrequest("POST", f"{self._prefix}/api/files?{urlencode(query)}", skip_accept_encoding=True)
                for name, value in {**self._headers, "Content-Type": "application/octet-stream"}.items():
                    connection.putheader(name, value)
                if length is None:
                    connection.putheader("Transfer-Encoding", "chunked")
                else:
                    connection.putheader("Content-Length", str(length))
                connection.endheaders()
            self._send_body(connection, body, chunked=length is None)
            with self._translated():
                response = connection.getresponse()
            answer = self._whole(response)
        finally:
            self._drop(connection)
        if response.status >= FIRST_ERROR_STATUS:
            raise self._problem(response.status, answer)
        return self._decoded(answer, Started)

    @contextmanager
    def download(self, manifest: str, key: str = "") -> Iterator[Download]:
        """The plain bytes of a stored file. key: base64url, of private content."""
        headers = {KEY_HEADER: key} if key else {}
        with self._exchange(_Request("GET", content_path(manifest), headers, None, STALL_TIMEOUT_S)) as response:
            yield Download(response.length or 0, self._parts(response))

    def _send_body(self, connection: http.client.HTTPConnection, body: Iterable[bytes], *, chunked: bool) -> None:
        """Ends early where the node has stopped reading: its answer says why."""
        for part in body:
            if not part:
                continue  # in chunks, an empty one would be the end
            framed = b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
            try:
                connection.send(framed)
            except TimeoutError:
                raise TimedOut from None
            except OSError:
                return
        if chunked:
            with suppress(OSError):
                connection.send(b"0\r\n\r\n")

    def _whole(self, response: http.client.HTTPResponse) -> bytes:
        with self._translated():
            return response.read()

    def _parts(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        missing = response.length or 0
        while True:
            with self._translated():
                part = response.read(READ_BYTES)
            if not part:
                break
            missing -= len(part)
            yield part
        if missing > 0:  # http.client says so for a whole read only
            raise BrokenOff

    @contextmanager
    def _exchange(self, request: _Request) -> Iterator[http.client.HTTPResponse]:
        """One request and its answer, which is no error. A connection whose answer was read to its end is kept."""
        connection, response = self._answered(request)
        reusable = False
        try:
            if response.status >= FIRST_ERROR_STATUS:
                raise self._problem(response.status, self._whole(response))
            yield response
            reusable = response.isclosed() and not response.will_close
        finally:
            if reusable:
                self._keep(connection)
            else:
                self._drop(connection)

    def _answered(self, request: _Request) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        # A kept connection may have been ended by the other side in the meantime. Only what can be asked twice without
        # harm is sent on one.
        connection = self._kept() if request.method == "GET" else None
        if connection is not None:
            try:
                return connection, self._sent(connection, request)
            except (ConnectionError, http.client.HTTPException):
                self._drop(connection)
            except BaseException:
                self._drop(connection)
                raise
        connection = self._connection()
        try:
            with self._translated():
                return connection, self._sent(connection, request)
        except BaseException:
            self._drop(connection)
            raise

    def _sent(self, connection: http.client.HTTPConnection, request: _Request) -> http.client.HTTPResponse:
        self._connect(connection, request.timeout_s)
        headers = {**self._headers, **request.headers}
        connection.request(request.method, self._prefix + request.path, request.body, headers)
        return connection.getresponse()

    def _connect(self, connection: http.client.HTTPConnection, timeout_s: float) -> None:
        if connection.sock is None:
            try:
                connection.connect()
            except (OSError, UnicodeError):  # the latter of a name that no host can have
                raise NotRunning(self.url) from None
            if self._proof_key is not None:
                self._check_proof(connection, self._proof_key)
        connection.sock.settimeout(timeout_s)

    def _check_proof(self, connection: http.client.HTTPConnection, key: str) -> None:
        """Raises: NotOurs; what the network does is the caller's to translate."""
        nonce = new_nonce()
        connection.sock.settimeout(ANSWER_TIMEOUT_S)
        address = connection.sock.getpeername()[:2]
        connection.request("GET", f"{self._prefix}{PROOF_PATH}?nonce={nonce}")
        response = connection.getresponse()
        given = response.read(MAX_PROOF_BYTES + 1)
        try:
            proof = msgspec.json.decode(given, type=ProofView).proof if response.status == OK_STATUS else ""
        except UNDECODABLE:
            proof = ""
        expected = proof_of(key, nonce, address)
        # A connection that is over would be opened again, to whoever is there by then.
        if not key or not hmac.compare_digest(proof.encode(), expected.encode()) or connection.sock is None:
            raise NotOurs(self.url)

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        connection.auto_open = 0  # only `_connect` opens it: it looks who is there
        with self._lock:
            if self._closed:
                raise BrokenOff
            self._open.add(connection)
        return connection

    def _kept(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Around what only the node or the network can bring about."""
        try:
            yield
        except TimeoutError:
            raise TimedOut from None
        except http.client.BadStatusLine as error:
            # RemoteDisconnected is one of these; any other first line is no HTTP.
            raise (BrokenOff() if isinstance(error, ConnectionError) else NoGateway(self.url)) from None
        except (OSError, http.client.HTTPException):
            raise BrokenOff from None

    def _decoded(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except UNDECODABLE:
            raise NoGateway(self.url) from None

    def _problem(self, status: int, body: bytes) -> GatewayError:
        try:
            problem = msgspec.json.decode(body, type=ProblemBody).error
        except UNDECODABLE:
            return NoGateway(self.url)
        return Refused(status, problem.code, problem.message, problem.hint)
