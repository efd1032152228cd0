"""A chunk over a real data channel between two nodes, sealed; and who is not the expected node is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.webrtc.transport import WebrtcTransport
from shared.bus import bodies
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Accepted, PeerjsToken, PeerjsTokenRequest, SendRequest
from shared.content.messages import RequestChunk
from shared.errors import Cause, RemoteFailure
from shared.settings.config import WebrtcSettings
from shared.settings.rendezvous_follower import DocumentFollower
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.services.webrtc.peer_server import FakePeerServer

REF = "chunk-a"
BODY = bytes(range(256)) * 4096 + b"the tag of 16 by"


class Borrowed(WebrtcTransport):
    """Registers under the PeerJS id of another node's key."""

    def __init__(self, key: bytes, *parts: Any) -> None:
        super().__init__(*parts)
        self._borrowed = key

    def set_identity(self, identity_key: bytes) -> None:
        super().set_identity(self._borrowed)


class Meeting:
    """Two nodes with a webrtc worker each, registered with one PeerServer."""

    def __init__(self, folder: Path) -> None:
        self._document = folder / "document.json"
        self._server = FakePeerServer()
        self.near, self.far = WorkerNode(b"\x01" * 32), WorkerNode(b"\x02" * 32)
        self.near.members, self.far.members = [self.far.token], [self.near.token]
        self.far.bodies[REF] = BODY

    async def start(self) -> None:
        await self._server.start()
        entry = self._server.entry
        self._document.write_text(json.dumps({"peerServers": [{"url": entry.url, "key": entry.key}]}))
        for node in (self.near, self.far):
            await self.join(node)

    async def join(self, node: WorkerNode, *, as_if: bytes | None = None) -> None:
        """as_if: register under the PeerJS id of another key."""

        async def token(call: PeerjsTokenRequest, incoming: Incoming) -> PeerjsToken:
            return PeerjsToken(node.seed.hex())

        await node.hub.bus("chunk-tokens").serve(node.subjects.peerjs_token, PeerjsTokenRequest, token)
        bus = node.hub.bus("worker-1")
        watch = DocumentFollower(str(self._document))
        kind = WebrtcTransport if as_if is None else partial(Borrowed, as_if)
        transport = kind(bus, node.subjects, WebrtcSettings(host="127.0.0.1"), watch)
        await node.start(transport)
        await until(lambda: node.status and node.status.state == "ready", 10.0)

    async def stop(self) -> None:
        await self.near.stop()
        await self.far.stop()
        await self._server.stop()


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    meeting = Meeting(tmp_path)
    await meeting.start()
    yield meeting
    await meeting.stop()


async def test_a_chunk_crosses_a_sealed_data_channel(meeting: Meeting) -> None:
    near, far = meeting.near, meeting.far
    await near.dial(far.token, timeout_s=10.0)
    link = near.subjects.link("webrtc", far.token)
    await near.caller.request(link, SendRequest(b"r" * 16, "manager-1", 1, RequestChunk(REF)), Accepted, timeout_s=5.0)
    await until(lambda: near.answers, 10.0)
    body = near.answers[0].body
    assert body is not None
    assert await bodies.pull(near.puller, near.subjects, body, timeout_s=5.0) == BODY
    assert far.asked[0].stamp.role == "member"


async def test_whoever_takes_a_nodes_peerjs_id_is_not_that_node(meeting: Meeting) -> None:
    wanted, impostor = WorkerNode(b"\x03" * 32), WorkerNode(b"\x04" * 32)
    await meeting.join(impostor, as_if=wanted.key)
    try:
        with pytest.raises(RemoteFailure) as refusal:
            await meeting.near.dial(wanted.token, timeout_s=10.0)
        assert refusal.value.cause is Cause.UNAUTHENTICATED
        assert meeting.near.status is not None
        assert meeting.near.status.peers == []
    finally:
        await impostor.stop()
