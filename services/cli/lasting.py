"""The gateway of a command that takes a while: where it is restarted meanwhile, it is found again, and work goes on.

A gateway that comes back has a new process, a new proof key and maybe another port; its home says all of it. What the
node does for us goes on without it: a transfer keeps its id, and what is stored stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Self, TypeVar

from services.cli.api import client_of
from services.cli.daemon import Daemon
from services.cli.failures import CliFailure
from shared.backoff import delays_s
from shared.errors import Cause
from shared.gateway_api import calls
from shared.gateway_api.client import Download, GatewayClient
from shared.gateway_api.errors import BrokenOff, GatewayError, NotOurs, NotRunning, Refused

GONE_FOR_S = 30.0
"""A supervisor starts a gateway again within a second or two; one that is gone for longer was stopped."""
RETRY_FIRST_S = 0.1
RETRY_CAP_S = 1.0
WAITING = "waiting: the node's gateway is away; what runs goes on in the node"
GOES_ON = "it goes on"

WENT_WITH_IT = frozenset({Cause.SOURCE_LOST.value, Cause.CLOSED.value, "not_found"})
"""How a transfer ends, or is not known any more, because its gateway went: the bytes that it held are gone, it
cancelled what it had asked for, or nobody was there to hear of the end."""

T = TypeVar("T")
Say = Callable[[str], None]


class LastingGateway:
    """restarts: how often it was found again. find: looks where it is, as `find_daemon` does."""

    def __init__(self, find: Callable[[], Daemon]) -> None:
        self._find = find
        self._daemon = find()
        self._client = client_of(self._daemon)
        self._was_reached = False
        self.restarts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    @property
    def client(self) -> GatewayClient:
        """Of the gateway as it was last found."""
        return self._client

    def do(self, work: Callable[[GatewayClient], T], say: Say) -> T:
        """The result of `work`, which is done again from its beginning where the gateway is restarted under it.

        Raises: what `work` raises; for a gateway that is gone and does not come back, what it raised first.
        """
        while True:
            try:
                result = work(self._client)
            except (BrokenOff, NotRunning, NotOurs) as error:
                # Only a connection that stood can break; one that never did is no restart.
                self._was_reached = self._was_reached or isinstance(error, BrokenOff)
                if not self._was_reached or not self._found_again(error, say):
                    raise
                continue
            self._was_reached = True
            return result

    def ended(self, error: CliFailure | Refused, restarts: int) -> bool:
        """Whether a transfer came to nothing because the gateway went; restarts: when it was asked for."""
        return error.code in WENT_WITH_IT and self.restarts != restarts

    def _found_again(self, error: GatewayError, say: Say) -> bool:
        """Wait for it. Returns: False where it does not come, or was there all the time: then the fault is another."""
        was_gone = not isinstance(error, BrokenOff)
        give_up_s = time.monotonic() + GONE_FOR_S
        said = False
        for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
            daemon = self._answering()
            if daemon is not None:
                if not was_gone and daemon == self._daemon:
                    return False
                self._client.close()
                self._daemon, self._client = daemon, client_of(daemon)
                self.restarts += 1
                if said:
                    say(GOES_ON)
                return True
            was_gone = True
            if not said:
                say(WAITING)
                said = True
            if time.monotonic() + delay_s > give_up_s:
                break
            time.sleep(delay_s)
        return False

    def _answering(self) -> Daemon | None:
        with suppress(GatewayError, CliFailure):
            daemon = self._find()
            with client_of(daemon) as client, suppress(Refused):  # which is an answer, too
                client.ask(calls.flags())
            return daemon
        return None


class LastingDownload:
    """The plain bytes of a stored file; where the gateway is restarted they go on from where they were cut.

    length: what was announced, in bytes; known within its `with`.
    """

    def __init__(self, gateway: LastingGateway, manifest: str, key: str, say: Say) -> None:
        self._gateway = gateway
        self._manifest = manifest
        self._key = key
        self._say = say
        self._stack = ExitStack()
        self._client: GatewayClient | None = None
        self._parts: Iterator[bytes] = iter(())
        self._count = 0
        self.length = 0

    def __enter__(self) -> Self:
        self._gateway.do(self._open, self._say)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def parts(self) -> Iterator[bytes]:
        """In order, to the end. Raises: GatewayError where they are cut short and nobody goes on."""
        while part := self._gateway.do(self._next, self._say):
            self._count += len(part)
            yield part

    def _next(self, client: GatewayClient) -> bytes:
        if client is self._client:
            return next(self._parts, b"")
        self._open(client)
        skip = self._count
        # Stored content never changes under its digest. It comes from this machine: to skip some is no great cost.
        for part in self._parts:
            if len(part) > skip:
                return part[skip:]
            skip -= len(part)
        return b""

    def _open(self, client: GatewayClient) -> None:
        self._stack.close()
        content: Download = self._stack.enter_context(client.download(self._manifest, self._key))
        self._client, self._parts, self.length = client, content.parts, content.length
