"""Links of one worker over a fake data channel: limits, and every way in which a dial ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from services.webrtc.limits import (
    MAX_HALF_OPEN,
    REFUSED_CANDIDATE,
    REFUSED_DESCRIPTION,
    REFUSED_HALF_OPEN,
    REFUSED_MESSAGE,
    REFUSED_RECORD,
    REFUSED_SPEECH,
)
from services.webrtc.links import WebrtcLinks
from services.webrtc.offers import Asked, asked_by, native_offer
from shared.errors import Cause, RemoteProtocolError, TransportError
from shared.rtc.contract import LinkEvents, LinkSettings
from shared.speech.contract import SEALED_NATIVE
from shared.speech.peerjs import MANAGER, MESH, PEERJS
from shared.transport.contract import LinkDown, LinkUp, PeerHint, TransportEvent
from shared.wire.peerjs.messages import (
    Answer,
    AnswerPayload,
    Candidate,
    CandidatePayload,
    Expire,
    IceCandidate,
    Leave,
    Message,
    Offer,
    OfferPayload,
    SessionDescription,
    encode_message,
)
from tests.fakes.waiting import until

HINT = PeerHint(b"k" * 32, "peer-far")


class FakeChannel:
    """A data channel that does what the test says."""

    def __init__(self, settings: LinkSettings, events: LinkEvents) -> None:
        self.settings = settings
        self.events = events
        self.ordered = not settings.unordered
        self.refused_candidates = 0
        self.candidates: list[str] = []
        self.is_open = False
        self.has_path = False
        self.queued_bytes = 0
        self.closed = False

    async def offer(self, label: str, *, ordered: bool = True) -> str:
        return "offer"

    async def accept_offer(self, sdp: str) -> str:
        return self._take(sdp) or "answer"

    async def accept_answer(self, sdp: str) -> None:
        self._take(sdp)

    def _take(self, sdp: str) -> str:
        if sdp == "bad":
            raise RemoteProtocolError("bad")
        if sdp == "open":
            self.events.on_open()
        return ""

    async def add_candidate(self, candidate: str, mid: str | None, line_index: int | None) -> None:
        self.candidates.append(candidate)
        self.refused_candidates += candidate == "blocked"

    def fingerprints(self) -> tuple[bytes, bytes]:
        return b"d" * 32, b"l" * 32

    async def send(self, data: bytes) -> None:
        return None

    async def close(self, cause: Cause = Cause.CLOSED) -> None:
        if not self.closed:
            self.closed = True
            self.events.on_closed(cause)


@dataclass
class Bench:
    """Links with what they said and made."""

    channels: list[FakeChannel] = field(default_factory=list)
    sent: list[Offer | Answer | Expire] = field(default_factory=list)
    events: list[TransportEvent] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    signalling: Cause | None = None
    pages: bool = False

    def __post_init__(self) -> None:
        speeches = (SEALED_NATIVE, MANAGER, PEERJS) if self.pages else (SEALED_NATIVE,)
        self.links = WebrtcLinks(
            self._make, LinkSettings, self._send, self.events.append, self.refused, speeches, "peer-own"
        )

    def _make(self, settings: LinkSettings, events: LinkEvents) -> FakeChannel:
        self.channels.append(FakeChannel(settings, events))
        return self.channels[-1]

    async def _send(self, message: Offer | Answer | Expire, connection_id: str) -> None:
        if self.signalling is not None:
            raise TransportError(self.signalling)
        self.sent.append(message)

    async def dialling(self) -> asyncio.Task[None]:
        """A dial whose OFFER is out."""
        before = len(self.sent)
        task = asyncio.create_task(self.links.dial(HINT, 3))
        await until(lambda: len(self.sent) > before)
        return task

    @property
    def connection_id(self) -> str:
        last = self.sent[-1]
        assert isinstance(last, Offer)
        return last.payload.connection_id

    async def signal(self, message: Message) -> None:
        await self.links.signal(encode_message(message).encode())

    async def answer(self, sdp: str, src: str = HINT.peerjs_id, connection_id: str = "") -> None:
        payload = AnswerPayload(SessionDescription("answer", sdp), connection_id or self.connection_id)
        await self.signal(Answer(payload, src=src))


async def failed(dialling: asyncio.Task[None]) -> Cause:
    with pytest.raises(TransportError) as error:
        await dialling
    return error.value.cause


async def test_an_answer_opens_the_link() -> None:
    bench = Bench()
    dialling = await bench.dialling()
    await bench.answer("open")
    await dialling
    [up] = bench.events
    assert isinstance(up, LinkUp)
    assert (up.dialer, up.expected_key, up.binding) == (True, HINT.key, b"d" * 32 + b"l" * 32)
    await bench.links.close_all()
    assert bench.events[1:] == [LinkDown(up.link, Cause.CLOSED)]


async def test_how_dials_fail() -> None:
    bench = Bench()
    dialling = await bench.dialling()
    await bench.signal(Expire(src=HINT.peerjs_id))
    assert await failed(dialling) is Cause.PEER_UNKNOWN

    dialling = await bench.dialling()
    await bench.answer("bad")
    assert await failed(dialling) is Cause.INVALID
    assert bench.refused[REFUSED_DESCRIPTION] == 1

    dialling = await bench.dialling()
    await bench.answer("answer")
    await bench.channels[-1].close(Cause.ICE_FAILED)
    assert await failed(dialling) is Cause.ICE_FAILED

    bench.signalling = Cause.SIGNALLING_UNAVAILABLE
    assert await failed(asyncio.create_task(bench.links.dial(HINT, 3))) is Cause.SIGNALLING_UNAVAILABLE
    assert bench.events == []
    assert all(channel.closed for channel in bench.channels)
    await bench.links.close_all()


async def test_an_expire_after_the_answer_means_nothing() -> None:
    bench = Bench()
    dialling = await bench.dialling()
    await bench.answer("answer")
    await bench.signal(Expire(src=HINT.peerjs_id))
    bench.channels[-1].events.on_open()
    await dialling
    await bench.links.close_all()


async def test_strangers_and_second_answers_reach_nothing() -> None:
    bench = Bench()
    dialling = await bench.dialling()
    await bench.answer("open", src="peer-stranger")
    await bench.answer("open", connection_id="dc_other")
    await bench.signal(Leave(src=HINT.peerjs_id))
    await bench.links.signal(b"{")
    assert bench.refused[REFUSED_MESSAGE] == 4
    assert bench.events == []
    await bench.answer("answer")
    await bench.answer("open")
    assert bench.refused[REFUSED_MESSAGE] == 5
    await bench.links.close_all()
    assert await failed(dialling) is Cause.CLOSED


async def test_candidates_go_to_their_connection_and_refused_ones_are_counted_once() -> None:
    bench = Bench()
    dialling = await bench.dialling()
    for candidate in ("one", "blocked", "two"):
        payload = CandidatePayload(IceCandidate(candidate), bench.connection_id)
        await bench.signal(Candidate(payload, src=HINT.peerjs_id))
        await bench.signal(Candidate(payload, src="peer-stranger"))
    assert bench.channels[-1].candidates == ["one", "blocked", "two"]
    assert bench.refused[REFUSED_CANDIDATE] == 1
    await bench.links.close_all()
    await asyncio.gather(dialling, return_exceptions=True)


async def test_half_open_links_are_bounded_both_ways_together() -> None:
    bench = Bench()
    for number in range(MAX_HALF_OPEN):
        bench.links.take_offer(Offer(native_offer("offer", f"dc_{number}"), src=f"peer-{number}"))
        await until(lambda count=number + 1: len(bench.sent) == count)  # type: ignore[misc]
    with pytest.raises(TransportError) as full:
        bench.links.take_offer(Offer(native_offer("offer", "dc_more"), src="peer-more"))
    assert full.value.cause is Cause.BUSY
    assert await failed(asyncio.create_task(bench.links.dial(HINT, 1))) is Cause.BUSY
    assert bench.refused[REFUSED_HALF_OPEN] == 2
    await bench.links.close_all()
    assert all(channel.closed for channel in bench.channels)
    assert await failed(asyncio.create_task(bench.links.dial(HINT, 1))) is Cause.CLOSED


async def test_offers_taken_in_one_moment_are_bounded_too() -> None:
    bench = Bench()
    with pytest.raises(TransportError):
        for number in range(MAX_HALF_OPEN + 1):
            bench.links.take_offer(Offer(native_offer("offer", f"dc_{number}"), src=f"peer-{number}"))
    await bench.links.close_all()


async def test_a_bad_record_of_an_open_link_is_counted() -> None:
    bench = Bench()
    bench.links.take_offer(Offer(native_offer("open", "dc_1"), src="peer-1"))
    await until(lambda: bench.events)
    await bench.channels[-1].close(Cause.TOO_LARGE)
    assert bench.refused[REFUSED_RECORD] == 1
    assert isinstance(bench.events[-1], LinkDown)
    await bench.links.close_all()


def page_offer() -> Offer:
    payload = OfferPayload(SessionDescription("offer", "open"), "dc_1", metadata={"userId": "x"}, reliable=True)
    return Offer(payload, src="peer-page")


async def test_a_pages_offer_is_refused_where_its_speech_is_not_spoken() -> None:
    bench = Bench()
    with pytest.raises(TransportError) as refusal:
        bench.links.take_offer(page_offer())
    assert refusal.value.cause is Cause.REFUSED
    assert bench.refused[REFUSED_SPEECH] == 1
    assert bench.channels == []


async def test_a_pages_link_says_its_speech_and_who_the_server_vouches_for() -> None:
    bench = Bench(pages=True)
    bench.links.take_offer(page_offer())
    await until(lambda: bench.events)
    [up] = bench.events
    assert isinstance(up, LinkUp)
    assert (up.speech, up.guest, up.expected_key, up.dialer) == (MANAGER, "peer-page", None, False)
    assert (up.ordered, up.serialization) == (False, "binary")
    settings = bench.channels[0].settings
    assert (settings.unordered, settings.text, settings.max_message_bytes) == (True, False, 262_144)
    await bench.links.close_all()


async def test_a_peer_that_leaves_its_link_is_dialled_again() -> None:
    bench = Bench()
    first = await bench.dialling()
    await bench.answer("open")
    await first
    await bench.links.dial(HINT, 3)
    assert len(bench.sent) == 1
    dialling = asyncio.create_task(bench.links.dial(PeerHint(HINT.key, HINT.peerjs_id, fresh=True), 3))
    await until(lambda: len(bench.sent) == 2)
    await bench.answer("open")
    await dialling
    await bench.links.close_all()


async def test_a_page_is_dialled_by_its_id_and_not_twice() -> None:
    bench = Bench(pages=True)
    page = PeerHint(b"", "page-one")
    dialling = asyncio.create_task(bench.links.dial(page, 3))
    await until(lambda: bench.sent)
    [offer] = bench.sent
    assert isinstance(offer, Offer)
    assert (offer.dst, offer.payload.serialization, offer.payload.reliable) == ("page-one", "binary", True)
    assert offer.payload.metadata == {"userId": "peer-own", "nodeId": "peer-own", "source": "swarmbridge"}
    await bench.answer("open", src="page-one")
    await dialling
    [up] = bench.events
    assert isinstance(up, LinkUp)
    assert (up.speech, up.guest, up.expected_key, up.dialer) == (PEERJS, "page-one", None, True)
    await bench.links.dial(page, 3)
    assert len(bench.sent) == 1
    await bench.links.close_all()


async def test_a_page_is_unknown_where_its_speech_is_not_spoken() -> None:
    bench = Bench()
    assert await failed(asyncio.create_task(bench.links.dial(PeerHint(b"", "page-one"), 1))) is Cause.PEER_UNKNOWN
    assert bench.channels == []


async def test_an_offer_that_cannot_be_answered_is_turned_away() -> None:
    bench = Bench(pages=True)
    payload = OfferPayload(SessionDescription("offer", "bad"), "dc_1", metadata={"userId": "x"})
    bench.links.take_offer(Offer(payload, src="peer-page"))
    await until(lambda: bench.sent)
    assert bench.sent == [Expire(dst="peer-page")]
    assert bench.refused[REFUSED_DESCRIPTION] == 1
    await bench.links.close_all()


@pytest.mark.parametrize(
    ("metadata", "serialization", "asked"),
    [
        ({"swarmbridge": 1}, "raw", Asked(SEALED_NATIVE, "")),
        ({"swarmbridge": 2}, "raw", None),
        ({"userId": "x"}, "binary", Asked(MANAGER, "binary")),
        ({"nodeId": "x", "source": "mesh"}, "json", Asked(MESH, "json")),
        ({"nodeId": "x", "userId": "x"}, "binary-utf8", Asked(PEERJS, "binary")),
        (None, "raw", Asked(PEERJS, "raw")),
        ("userId", "binary", Asked(PEERJS, "binary")),
        (None, "MsgPack", None),
    ],
)
def test_what_an_offer_asks_for(metadata: object, serialization: str, asked: Asked | None) -> None:
    payload = OfferPayload(SessionDescription("offer", "sdp"), "dc_1", metadata=metadata, serialization=serialization)
    assert asked_by(payload) == asked


@pytest.mark.parametrize(("has_path", "cause"), [(False, Cause.ICE_FAILED), (True, Cause.DIAL_TIMEOUT)])
async def test_a_dial_that_was_answered_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, has_path: bool, cause: Cause
) -> None:
    monkeypatch.setattr("services.webrtc.links.DIAL_TIMEOUT_S", 0.2)
    bench = Bench()
    dialling = await bench.dialling()
    bench.channels[-1].has_path = has_path
    await bench.answer("answer")
    assert await failed(dialling) is cause
    await bench.links.close_all()
