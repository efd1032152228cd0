"""What strangers do to a webrtc worker over real data channels and signalling: each is refused and counted, memory
stays bounded, and the link that was there before goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.webrtc.links import DIAL_TIMEOUT_S
from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import RequestChunk
from shared.errors import Cause, RemoteFailure, TransportError
from shared.ids import new_request_id, peerjs_id
from shared.rtc.contract import MAX_MESSAGE_BYTES
from shared.wire.binarypack.codec import encode_value
from shared.wire.peerjs.chunking import MAX_JOINS, SLICE_BYTES
from shared.worker.speeches import SPEECHES
from tests.fakes.waiting import until
from tests.integration.test_webrtc_sealed import BODY, REF, Meeting
from tests.services.webrtc.peer_server import FakePeerServer
from tests.shared.rtc.pair import LOOPBACK, End

pytestmark = pytest.mark.timeout(180)
MIB = 2**20
GROWTH_MIB = 64
FLOOD = 2_000


class Stranger:
    """A page without a browser: registered with the PeerServer, and as free in what it sends as any."""

    def __init__(self, meeting: Meeting, server: FakePeerServer, name: str = "page-one") -> None:
        self.name = name
        self.heard: list[dict[str, Any]] = []
        self.end = End(LOOPBACK)
        self._server = server
        self._target = peerjs_id(meeting.near.key)
        server.sockets[name] = ("", self)  # type: ignore[assignment]

    async def send_str(self, text: str) -> None:
        """What its socket gets from the server."""
        self.heard.append(json.loads(text))

    async def close(self) -> None:
        """Its socket's end."""

    async def say(self, kind: str, payload: Any) -> None:
        await self._server.say(self._target, {"type": kind, "src": self.name, "dst": self._target, "payload": payload})

    async def offer(self, sdp: str, connection_id: str = "dc_1", **more: Any) -> None:
        payload = {"sdp": {"type": "offer", "sdp": sdp}, "type": "data", "connectionId": connection_id}
        await self.say("OFFER", {**payload, "reliable": True, "serialization": "binary", "metadata": None, **more})

    async def enter(self) -> None:
        """Open a link as a page does."""
        await self.offer(await self.end.link.offer("dc_1"))
        await until(lambda: any(message["type"] == "ANSWER" for message in self.heard), timeout_s=10)
        [answer] = [message for message in self.heard if message["type"] == "ANSWER"]
        await self.end.link.accept_answer(answer["payload"]["sdp"]["sdp"])
        await until(lambda: self.end.opened, timeout_s=10)

    async def leave(self) -> None:
        await self.end.link.close()


@pytest.fixture
async def server() -> FakePeerServer:
    return FakePeerServer()


@pytest.fixture
async def meeting(tmp_path: Path, server: FakePeerServer) -> AsyncIterator[Meeting]:
    """Node `far` serves `near` over a sealed link; strangers go for `near`, which serves them as guests."""
    meeting = Meeting(tmp_path, server, SPEECHES)
    meeting.near.bodies[REF] = BODY
    await meeting.start()
    await meeting.near.dial(meeting.far.token)
    yield meeting
    await meeting.stop()


async def still_serves(meeting: Meeting) -> None:
    near, request_id = meeting.near, new_request_id()
    call = SendRequest(request_id, "manager-1", 1, RequestChunk(REF))
    await near.caller.request(near.subjects.link("webrtc", meeting.far.token), call, Accepted, timeout_s=10.0)
    await until(lambda: any(answer.request_id == request_id for answer in near.answers), timeout_s=20)
    [answer] = [answer for answer in near.answers if answer.request_id == request_id]
    assert answer.body is not None
    assert await bodies.pull(near.puller, near.subjects, answer.body, timeout_s=10.0) == BODY


def refused(meeting: Meeting, name: str) -> int:
    """As the worker's status counts it: by the transport, or by the worker around it."""
    status = meeting.near.status
    return meeting.transports[0].refused[name] + (status.refused.get(name, 0) if status is not None else 0)


def rss_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


async def test_floods_of_signalling(meeting: Meeting, server: FakePeerServer) -> None:
    before = rss_mib()
    stranger = Stranger(meeting, server)
    sdp = await stranger.end.link.offer("dc_1")
    for number in range(FLOOD):
        await stranger.offer(sdp, f"dc_{number}")
    await until(lambda: refused(meeting, "offers_of_source") > FLOOD - 100, timeout_s=30)
    for number in range(200):  # each a source of its own
        await Stranger(meeting, server, f"page-{number}").offer(sdp, "dc_1")
    await until(lambda: refused(meeting, "offers_of_server") > 100, timeout_s=30)
    for number in range(1_000):
        candidate = {"candidate": f"candidate:{number} 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
        await stranger.say("CANDIDATE", {"candidate": candidate, "connectionId": "dc_0", "type": "data"})
        await stranger.say("CANDIDATE", {"candidate": candidate, "connectionId": f"no_{number}", "type": "data"})
    await still_serves(meeting)
    for size in (0, 1, 1_000, 60_000):
        for metadata in ("m" * size, {"k": ["v"] * (size // 8)}, {"userId": "u" * size}):
            await Stranger(meeting, server, "page-metadata").offer("v=0", "dc_m", metadata=metadata)
    for payload in (None, 5, {}, {"sdp": 5}, {"type": "media", "connectionId": "mc"}, {"connectionId": "x" * 5_000}):
        await stranger.say("OFFER", payload)
    await until(lambda: refused(meeting, "offer") >= 6, timeout_s=10)
    await still_serves(meeting)
    print(f"memory grew by {rss_mib() - before:.1f} MiB; refused: {dict(meeting.transports[0].refused)}")
    assert rss_mib() - before < GROWTH_MIB
    await stranger.leave()


def _bombs() -> dict[str, list[bytes]]:
    part = encode_value({"__peerData": 1, "n": 0, "data": bytes(SLICE_BYTES), "total": 1_000})
    return {
        "nested deeply": [b"\x91" * 200_000],
        "a map that is none": [b"\xdf\xff\xff\xff\xff"],
        "an array of billions": [b"\xdd\xff\xff\xff\xff" + bytes(1_000)],
        "a long message": [bytes(MAX_MESSAGE_BYTES)],
        "many unfinished": [part.replace(b"\x01", bytes([number]), 1) for number in range(1, MAX_JOINS + 20)],
        "slices without end": [
            encode_value({"__peerData": 1, "n": number, "data": bytes(SLICE_BYTES), "total": 1_024})
            for number in range(300)
        ],
        "a slice that is none": [encode_value({"__peerData": 1, "n": 5, "data": b"", "total": 2})],
        "what means nothing": [encode_value({"type": "x", "payload": {}})] * 5_000,
        "answers that nobody asked for": [
            encode_value({"type": "chunk", "payload": {"type": "chunk_data", "requestId": f"r{n}", "hash": "h"}})
            for n in range(5_000)
        ],
    }


@pytest.mark.parametrize("kind", list(_bombs()))
async def test_bombs_on_a_channel(meeting: Meeting, server: FakePeerServer, kind: str) -> None:
    before = rss_mib()
    stranger = Stranger(meeting, server)
    # Its own end takes what ours would not send.
    stranger.end = End(LOOPBACK.__class__(host="127.0.0.1", max_message_bytes=MAX_MESSAGE_BYTES, unordered=True))
    await stranger.enter()
    for record in _bombs()[kind]:
        if stranger.end.closed:
            break
        with contextlib.suppress(TransportError, TimeoutError):
            await asyncio.wait_for(stranger.end.link.send(record), 10)
    await until(lambda: stranger.end.closed, timeout_s=30)
    causes = (Cause.INVALID, Cause.TOO_LARGE, Cause.RATE_LIMITED)
    await until(lambda: any(refused(meeting, cause.value) for cause in causes), timeout_s=10)
    await still_serves(meeting)
    assert rss_mib() - before < GROWTH_MIB


class InTheMiddle(FakePeerServer):
    """A server that puts itself between two nodes: its own fingerprint to either, and their records passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.carried = 0
        self._dialling: dict[str, End] = {}
        self._ends: list[End] = []

    async def _relay(self, src: str, message: dict[str, Any]) -> None:
        payload = message.get("payload", {})
        if message["type"] == "OFFER":
            listening, dialling = End(LOOPBACK), End(LOOPBACK)
            self._ends += [listening, dialling]
            self._dialling[payload["connectionId"]] = dialling
            answer = {"sdp": {"type": "answer"}, "type": "data", "connectionId": payload["connectionId"]}
            answer["sdp"]["sdp"] = await listening.link.accept_offer(payload["sdp"]["sdp"])
            offer = {**payload, "sdp": {"type": "offer", "sdp": await dialling.link.offer("swarmbridge")}}
            await self.say(src, {"type": "ANSWER", "src": message["dst"], "dst": src, "payload": answer})
            await self.say(message["dst"], {"type": "OFFER", "src": src, "dst": message["dst"], "payload": offer})
            ways = ((listening, dialling), (dialling, listening))
            self._carrying = [asyncio.create_task(self._carry(*way)) for way in ways]
        elif message["type"] == "ANSWER":
            await self._dialling[payload["connectionId"]].link.accept_answer(payload["sdp"]["sdp"])
        else:
            await super()._relay(src, message)

    async def _carry(self, one: End, other: End) -> None:
        while not (one.closed or other.closed):
            while one.messages and other.opened:
                await other.link.send(one.messages.pop(0))
                self.carried += 1
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        for end in self._ends:
            await end.link.close()
        await super().stop()


async def test_a_server_that_swaps_fingerprints_is_unmasked_by_the_seal(tmp_path: Path) -> None:
    server = InTheMiddle()
    meeting = Meeting(tmp_path, server)
    await meeting.start()
    try:
        with pytest.raises(RemoteFailure) as failure:
            await meeting.near.dial(meeting.far.token, timeout_s=DIAL_TIMEOUT_S * 2)
        assert failure.value.cause is Cause.UNAUTHENTICATED
        assert server.carried > 0, "the handshake went through its hands"
    finally:
        await meeting.stop()
