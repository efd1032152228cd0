"""The SDP in our tracker offers.

A node reads the hint beside it and dials by TCP; the SDP itself is there because the tracker protocol wants one.
It is made once a run by aiortc, with a data channel, and kept open as long as it is offered. Data-channel links
to browsers are not served yet: nobody's answer to it is taken, and the README says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from services.webtorrent.endpoints import is_wildcard
from shared.errors import Cause, SwarmbridgeError, TransportError
from shared.rtc import available
from shared.rtc.contract import DataChannel, LinkEvents, LinkSettings

EMPTY_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
"""A session without media: what is offered while, or where, there is no better one."""
LABEL = "swarm-space"

log = logging.getLogger(__name__)


class OfferSource:
    """sdp: to put into offers now. import_failed: aiortc cannot be used.

    Cancellation: `run` closes its peer connection before it ends.
    """

    def __init__(self, host: str, changed: Callable[[], None]) -> None:
        self.sdp = EMPTY_SDP
        self.import_failed = False
        self._changed = changed
        self._host = "" if is_wildcard(host) else host

    async def run(self) -> None:
        """Make the SDP, then hold what it describes until cancelled."""
        try:
            factory = await asyncio.to_thread(available.load)
        except TransportError:
            self.import_failed = True
            self._changed()
            return
        closed = asyncio.Event()
        events = LinkEvents(on_open=_ignore, on_message=_ignore_message, on_closed=lambda cause: closed.set())
        channel: DataChannel = factory(LinkSettings(host=self._host), events)
        try:
            self.sdp = await channel.offer(LABEL)
            await closed.wait()
        except SwarmbridgeError as error:
            log.warning("no offer could be made: %s", error.cause.value)
        finally:
            self.sdp = EMPTY_SDP
            await channel.close(Cause.CLOSED)


def _ignore() -> None:
    return None


def _ignore_message(data: bytes) -> None:
    return None
