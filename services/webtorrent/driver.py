"""A PeerWire with its clock, whatever carries its bytes: feed it, write what it wants written, keep its timer.

The glue is always the same: feed the machine, write, hand on its events, re-arm the timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.clock import Clock
from shared.errors import Cause
from shared.wire.peerwire import Closed, Event, PeerWire

UNREAD_S = 120.0
"""A peer that has not read what `send` waits for within this time is as good as silent (docs/limits.md#peer-wire).
With the buffers of a stream that is 6 KB/s: slower is of no use to any request."""


class WireDriver:
    """write: takes bytes for the stream. on_event: an event that is no Closed. on_closed: the machine is over.

    over: nothing is fed, written or reported any more. bytes_out: handed to `write`.
    """

    def __init__(
        self,
        wire: PeerWire,
        clock: Clock,
        write: Callable[[bytes], None],
        on_event: Callable[[Event], None],
        on_closed: Callable[[Cause], None],
    ) -> None:
        self.over = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._wire = wire
        self._clock = clock
        self._write, self._on_event, self._on_closed = write, on_event, on_closed
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._unread: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The stream is up: say what is to be said first."""
        self._flush()
        self._arm_timer()

    def receive(self, data: bytes | memoryview) -> None:
        self.bytes_in += len(data)
        self._handle(self._wire.receive_data(data, self._clock()))

    def send_frame(self, frame: bytes) -> None:
        self._wire.send_frame(frame)
        self._flush()

    def stop(self) -> None:
        """Nothing more: what the machine still wanted to say has been written."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flowing()
        # A stream and its driver refer to each other, and wait for a collection of garbage that counts no bytes.
        self._wire.forget()

    def blocked(self) -> None:
        """The peer does not read: what is queued has reached its bound. It has UNREAD_S until `flowing`."""
        if self._unread is None and not self.over:
            self._unread = asyncio.get_running_loop().call_later(UNREAD_S, self._on_closed, Cause.SILENT)

    def flowing(self) -> None:
        """What was queued has left, or is nobody's concern any more."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _handle(self, events: list[Event]) -> None:
        # Before the events: an owner that closes on one of them must not cut off what the machine has just said.
        self._flush()
        for event in events:
            # An event's handler may have ended it: what came behind in the same read is nobody's.
            if self.over:
                return
            if isinstance(event, Closed):
                self._on_closed(event.cause)
                return
            self._on_event(event)
        self._arm_timer()

    def _flush(self) -> None:
        data = self._wire.data_to_send()
        if data:
            self.bytes_out += len(data)
            self._write(data)

    def _arm_timer(self) -> None:
        # Deadlines mostly move back: a timer that fires early asks again, which is cheaper than one per read.
        deadline = self._wire.next_deadline()
        if self.over or deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        delay_s = max(0.0, deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._handle(self._wire.handle_timer(self._clock()))
