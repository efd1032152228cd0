"""Faults on purpose, in one worker: what the chaos flag of its transport does to the requests that it sends.

`Asking` asks for each new request of ours and acts on the answer; everything below it (frames, seal, transport)
knows nothing of chaos. Where chaos is not allowed a flag is ignored, logged and counted once each time it is set.

Cancellation: delayed requests are tasks of the worker's and end with it. Bound: one a request without an answer
(asking.MAX_ASKED).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shared.ids import PeerToken, peer_name
from shared.settings.chaos import ChaosFlag, Fault
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.transports import TransportName

IGNORED = "ignored"
"""How a flag that may not act here is counted, beside the faults' own words."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Injection:
    """What to do to one request. delay_s: for Fault.DELAY, otherwise 0."""

    fault: Fault
    delay_s: float


class Chaos:
    """counts: requests by fault, and flags ignored, since the transport was last enabled.

    roll: evenly distributed numbers from 0 to below 1.
    """

    def __init__(
        self,
        transport: TransportName,
        flags: Flags,
        tasks: Tasks,
        *,
        allowed: bool,
        roll: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._flags = flags
        self._tasks = tasks
        self._allowed = allowed
        self._roll = roll
        self._sleep = sleep
        self._seen: ChaosFlag | None = None
        self.counts: Counter[str] = Counter()
        flags.on_change(self._flag_changed)

    def reset(self) -> None:
        """The transport was switched off, or on: count from here, and say again what is set."""
        self.counts.clear()
        # Forgotten, so that a flag that is still set is said and counted again.
        self._seen = None
        self._flag_changed()

    def injection(self, peer: PeerToken) -> Injection | None:
        """What to do to a request to this peer, which is counted; None: nothing."""
        flag = self._flags.chaos(self._transport) if self._allowed else None
        if flag is None:
            return None
        # The name only where the flag is for one peer: deriving it hashes.
        fault = flag.fault(peer_name(peer) if flag.peer else "", self._roll)
        if fault is None:
            return None
        self.counts[fault.value] += 1
        return Injection(fault, flag.delay_ms / 1000 if fault is Fault.DELAY else 0.0)

    def later(self, delay_s: float, send: Callable[[], None]) -> asyncio.Task[None]:
        """Call `send` after the delay, unless the returned task is cancelled before."""

        async def wait_and_send() -> None:
            await self._sleep(delay_s)
            send()

        return self._tasks.start(wait_and_send(), name="chaos-delay")

    def _flag_changed(self) -> None:
        flag = self._flags.chaos(self._transport)
        if flag == self._seen:
            return
        # Compared with the last one: the flag is said again to all whenever any of them changes.
        self._seen = flag
        if flag is None:
            log.warning("chaos flag cleared")
        elif self._allowed:
            log.warning("chaos: drop %d %%, refuse %d %%, delay %d ms", flag.drop, flag.refuse, flag.delay_ms)
        else:
            self.counts[IGNORED] += 1
            log.error("a chaos flag is set and ignored: this node runs in production")
