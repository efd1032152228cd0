"""The data-channel links of one worker: dialled, answered, open, closed.

    dial ── OFFER ──▶ signalling ──▶ peer              peer ── OFFER ──▶ take_offer
      ◀── ANSWER, CANDIDATE ── signal                  ── ANSWER ──▶ signalling
      LinkUp when the channel is open; LinkDown once for every LinkUp

A peer with a key is dialled for a sealed link; a guest, who has none, for a page's connection.

Signalling is given as a function, so that links know nothing of sockets and leases, and go on without them.
Limits are those of `limits`; each refusal is counted in `refused`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import assert_never

from services.webrtc.limits import (
    MAX_HALF_OPEN,
    MAX_LINKS,
    REFUSED_CANDIDATE,
    REFUSED_DESCRIPTION,
    REFUSED_HALF_OPEN,
    REFUSED_LINKS,
    REFUSED_MESSAGE,
    REFUSED_RECORD,
    REFUSED_SPEECH,
)
from services.webrtc.offers import LABEL, NATIVE, PAGE, Asked, asked_by, native_offer, page_offer
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, SwarmbridgeError, TransportError
from shared.ids import LinkId, new_link_id
from shared.rtc.contract import DataChannel, LinkEvents, LinkFactory, LinkSettings
from shared.speech.contract import SEALED_NATIVE
from shared.speech.page_packing import RAW
from shared.tasks.owned import Tasks
from shared.transport.contract import Emit, LinkDown, LinkUp, PeerHint, RecordReceived
from shared.wire.peerjs.messages import (
    Answer,
    AnswerPayload,
    Candidate,
    Error,
    Expire,
    Heartbeat,
    IdTaken,
    InvalidKey,
    Leave,
    Offer,
    Open,
    SessionDescription,
    decode_message,
)
from shared.wire.sealed.binding import webrtc_binding

DIAL_TIMEOUT_S = 3.0
"""From OFFER to open channel: the PeerServer's EXPIRE takes 5-6 s (docs/peerjs.md)."""
ANSWER_TIMEOUT_S = 10.0
"""For a remote peer that we answered to open its channel; a browser on a bad network is slower than a node."""
SendSignal = Callable[[Offer | Answer | Expire, str], Awaitable[None]]
"""Send a message of that connection. Raises TransportError(SIGNALLING_UNAVAILABLE) where nobody can."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """One link from its first description to its end. opened: done when it is open or can no longer be.

    peer: the id that the PeerServer vouches for. asked: what the link was asked for, by its OFFER or by our dial.
    """

    id: LinkId
    link: DataChannel
    peer: str
    connection_id: str
    dialer: bool
    expected_key: bytes | None
    asked: Asked
    opened: asyncio.Future[None]
    answered: bool = False
    up: bool = False
    counted: int = field(default=0)
    """Refused candidates already in the counter."""


class WebrtcLinks:
    """Driven by the transport. Not thread-safe; lives for one `run`."""

    def __init__(
        self,
        make: LinkFactory,
        settings: Callable[[], LinkSettings],
        send: SendSignal,
        emit: Emit,
        refused: Counter[str],
        speeches: Collection[str] = (SEALED_NATIVE,),
        own_id: str = "",
    ) -> None:
        """speeches: those that links may be opened for. own_id: our PeerJS id, for pages that we dial."""
        self._speeches = speeches
        self._own_id = own_id
        self._make = make
        self._settings = settings
        self._send_signal = send
        self._emit = emit
        self._refused = refused
        self._tasks = Tasks()
        self._links: dict[LinkId, _Held] = {}
        self._connections: dict[tuple[str, str], _Held] = {}
        self._dials: dict[str, asyncio.Task[Cause | None]] = {}
        self._closed = False

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        """Open a link to the peer; dials of one peer share one try. Raises: TransportError with the cause."""
        if not hint.fresh and any(held.up and _leads_to(held, hint) for held in self._links.values()):
            return
        if not hint.key and PAGE.speech not in self._speeches:
            raise TransportError(Cause.PEER_UNKNOWN)
        dialling = self._dials.get(hint.peerjs_id)
        if dialling is None:
            self._check_room()
            asked = NATIVE if hint.key else PAGE
            connection_id = f"dc_{os.urandom(8).hex()}"
            held = self._hold(hint.peerjs_id, connection_id, asked, dialer=True, expected_key=hint.key or None)
            dialling = self._tasks.start(self._dial(held), name="dial")
            self._dials[hint.peerjs_id] = dialling
            dialling.add_done_callback(lambda _: self._dials.pop(hint.peerjs_id, None))
        try:
            async with asyncio.timeout(min(timeout_s, DIAL_TIMEOUT_S)):
                # Shared: others may wait for it longer than we do.
                cause = await asyncio.shield(dialling)
        except TimeoutError:
            raise TransportError(self._out_of_time(hint.peerjs_id)) from None
        except asyncio.CancelledError:
            # The transport stopped under us, which is a failure of the dial and no cancellation of its caller.
            if dialling.cancelled() and not _cancelled_here():
                raise TransportError(Cause.CLOSED) from None
            raise
        if cause is not None:
            raise TransportError(cause)

    async def _dial(self, held: _Held) -> Cause | None:
        """One try. Returns: None where a link is up, else why none came."""
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                sealed, connection_id = held.asked.sealed, held.connection_id
                sdp = await held.link.offer(LABEL if sealed else connection_id)
                payload = native_offer(sdp, connection_id) if sealed else page_offer(sdp, connection_id, self._own_id)
                await self._send_signal(Offer(payload, dst=held.peer), held.connection_id)
                await held.opened
        except TimeoutError:
            return self._out_of_time(held.peer)
        except TransportError as error:
            return error.cause
        finally:
            # Also where the caller's time is over: a link that opens later would be nobody's.
            if not held.up:
                await held.link.close(Cause.DIAL_TIMEOUT)
        return None

    def _out_of_time(self, peer: str) -> Cause:
        """Who has answered is there: what was missing is a path, and ICE itself gives up later than a dial."""
        dialled = [held for held in self._links.values() if held.peer == peer and held.dialer and not held.up]
        lost = any(held.answered and not held.link.has_path for held in dialled)
        return Cause.ICE_FAILED if lost else Cause.DIAL_TIMEOUT

    def take_offer(self, offer: Offer, *, beacon: bool = False) -> None:
        """Answer an OFFER in the background. beacon: it was sent to the beacon of our room.

        Raises: TransportError: (REFUSED) for a speech that we do not have, (BUSY) where a limit forbids it.
        """
        asked = asked_by(offer.payload, beacon=beacon)
        if asked is None or asked.speech not in self._speeches:
            self._refused[REFUSED_SPEECH] += 1
            raise TransportError(Cause.REFUSED)
        if (offer.src, offer.payload.connection_id) in self._connections:
            return  # handed over twice; it is being answered
        self._check_room()
        held = self._hold(offer.src, offer.payload.connection_id, asked, dialer=False)
        self._tasks.start(self._answer(held, offer), name="answer")

    async def _answer(self, held: _Held, offer: Offer) -> None:
        answered = False
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                sdp = await held.link.accept_offer(offer.payload.sdp.sdp)
                self._count_candidates(held)
                payload = AnswerPayload(SessionDescription("answer", sdp), held.connection_id)
                await self._send_signal(Answer(payload, dst=offer.src), held.connection_id)
                answered = True
                await held.opened
        except RemoteProtocolError:
            self._refused[REFUSED_DESCRIPTION] += 1
        except (SwarmbridgeError, TimeoutError) as error:
            log.info("a remote peer's offer came to nothing: %s", type(error).__name__)
        finally:
            if not held.up:
                await held.link.close(Cause.DIAL_TIMEOUT)
        if not (answered or held.up):
            # Without an answer a page would wait indefinitely; this is the one word that it reports.
            with contextlib.suppress(TransportError):
                await self._send_signal(Expire(dst=offer.src), held.connection_id)

    async def signal(self, message: bytes) -> None:
        """A message of a connection of ours. Bad ones are counted and dropped; a bad ANSWER ends its dial."""
        try:
            decoded = decode_message(message)
        except RemoteProtocolError:
            self._refused[REFUSED_MESSAGE] += 1
            return
        match decoded:
            case Answer():
                await self._take_answer(decoded)
            case Candidate():
                await self._take_candidate(decoded)
            case Expire():
                self._peer_unknown(decoded.src)
            case Offer() | Leave() | Open() | IdTaken() | InvalidKey() | Error() | Heartbeat():
                self._refused[REFUSED_MESSAGE] += 1  # an OFFER has a subject of its own, the rest ends at the holder
            case _:
                assert_never(decoded)

    async def _take_answer(self, answer: Answer) -> None:
        held = self._connections.get((answer.src, answer.payload.connection_id))
        # A second ANSWER could bring another fingerprint, after the first had been taken for the peer's.
        if held is None or not held.dialer or held.answered:
            self._refused[REFUSED_MESSAGE] += 1
            return
        # Before the await: of two that come together one is taken.
        held.answered = True
        try:
            await held.link.accept_answer(answer.payload.sdp.sdp)
        except RemoteProtocolError as error:
            self._refused[REFUSED_DESCRIPTION] += 1
            self._fail(held, error.cause)
        self._count_candidates(held)

    async def _take_candidate(self, message: Candidate) -> None:
        held = self._connections.get((message.src, message.payload.connection_id))
        if held is None or held.up:
            return  # late: the link is open or gone
        ice = message.payload.candidate
        try:
            await held.link.add_candidate(ice.candidate, ice.sdp_mid, ice.sdp_m_line_index)
        except RemoteProtocolError:
            self._refused[REFUSED_CANDIDATE] += 1
        self._count_candidates(held)

    def _peer_unknown(self, peer: str) -> None:
        for held in list(self._connections.values()):
            if held.peer == peer and held.dialer and not held.answered:
                # Whoever has answered is there, whatever one of several servers says of it.
                self._fail(held, Cause.PEER_UNKNOWN)

    # ── open links ───────────────────────────────────────────────────────────────────────────────────────

    async def send(self, link: LinkId, record: bytes) -> None:
        """Queue one record; waits while the link's buffer is full. Raises: TransportError(CLOSED), (TOO_LARGE)."""
        held = self._links.get(link)
        if held is None or not held.up:
            raise TransportError(Cause.CLOSED)
        await held.link.send(record)

    async def close(self, link: LinkId, cause: Cause) -> None:
        held = self._links.get(link)
        if held is not None:
            await held.link.close(cause)

    async def close_all(self) -> None:
        """Close every link, open or not, and forget every dial. Nothing can be opened after it."""
        self._closed = True
        # All at once: each may take CLOSE_TIMEOUT_S.
        closing = [held.link.close(Cause.CLOSED) for held in list(self._links.values())]
        await asyncio.gather(*closing)
        await self._tasks.close()

    def pages(self) -> list[str]:
        """Ids of the pages with an open link, each once."""
        return sorted({held.peer for held in self._links.values() if held.up and held.asked.is_page})

    @property
    def half_open_count(self) -> int:
        return sum(not held.up for held in self._links.values())

    # ── one link's life ──────────────────────────────────────────────────────────────────────────────────

    def _check_room(self) -> None:
        if self._closed:
            raise TransportError(Cause.CLOSED)
        if len(self._links) >= MAX_LINKS:
            self._refused[REFUSED_LINKS] += 1
            raise TransportError(Cause.BUSY)
        if self.half_open_count >= MAX_HALF_OPEN:
            self._refused[REFUSED_HALF_OPEN] += 1
            raise TransportError(Cause.BUSY)

    def _hold(
        self, peer: str, connection_id: str, asked: Asked, *, dialer: bool, expected_key: bytes | None = None
    ) -> _Held:
        link_id = new_link_id()
        events = LinkEvents(
            on_open=lambda: self._on_open(held),
            on_message=lambda message: self._emit(RecordReceived(link_id, message)),
            on_closed=lambda cause: self._on_closed(held, cause),
        )
        # Under a seal every record counts, in its order; a page may have chosen otherwise, and `raw` holds text too.
        settings = replace(
            self._settings(),
            max_message_bytes=asked.max_message_bytes,
            unordered=not asked.sealed,
            text=asked.serialization == RAW,
        )
        link = self._make(settings, events)
        opened = asyncio.get_running_loop().create_future()
        # An answerer that was given up has nobody who reads its failure; asyncio would report it.
        opened.add_done_callback(_observe)
        held = _Held(link_id, link, peer, connection_id, dialer, expected_key, asked, opened)
        self._links[link_id] = held
        self._connections[(peer, connection_id)] = held
        return held

    def _on_open(self, held: _Held) -> None:
        if held.opened.done():
            return  # given up in the same moment; its owner closes it
        try:
            dialer_print, listener_print = held.link.fingerprints()
        except LocalProtocolError:  # a channel before both descriptions cannot be
            self._fail(held, Cause.OTHER)
            return
        held.up = True
        # Signalling is over for this link; its connection id may come again.
        self._connections.pop((held.peer, held.connection_id), None)
        binding = webrtc_binding(dialer_print, listener_print)
        # A seal proves more than the server does, so its peer is nobody yet; all others are who the server says.
        asked = held.asked
        guest = "" if asked.sealed else held.peer
        self._emit(
            LinkUp(
                held.id,
                held.dialer,
                binding,
                held.expected_key,
                asked.speech,
                guest,
                held.link.ordered,
                asked.serialization,
            )
        )
        if not held.opened.done():
            held.opened.set_result(None)

    def _on_closed(self, held: _Held, cause: Cause) -> None:
        self._links.pop(held.id, None)
        # A link that opened has left its place, and another may have it by now.
        if self._connections.get((held.peer, held.connection_id)) is held:
            del self._connections[(held.peer, held.connection_id)]
        if not held.opened.done():
            held.opened.set_exception(TransportError(cause))
        if not held.up:
            return
        if cause in (Cause.INVALID, Cause.TOO_LARGE):
            self._refused[REFUSED_RECORD] += 1
        self._emit(LinkDown(held.id, cause))

    def _fail(self, held: _Held, cause: Cause) -> None:
        """End a link that is not open yet; whoever waits for it gets the cause."""
        if not held.opened.done():
            held.opened.set_exception(TransportError(cause))

    def _count_candidates(self, held: _Held) -> None:
        new = held.link.refused_candidates - held.counted
        if new > 0:
            self._refused[REFUSED_CANDIDATE] += new
            held.counted += new


def _leads_to(held: _Held, hint: PeerHint) -> bool:
    if hint.key:
        return held.expected_key == hint.key
    return held.asked.is_page and held.peer == hint.peerjs_id


def _observe(future: asyncio.Future[None]) -> None:
    """Mark an exception as seen: a dial that was given up has nobody left to tell."""
    if not future.cancelled():
        future.exception()


def _cancelled_here() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
