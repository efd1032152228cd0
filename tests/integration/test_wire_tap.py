"""What somebody between two webtorrent workers sees, a BitTorrent handshake and nothing of what they say, and what
they get for meddling: a closed link.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator

import pytest

from services.webtorrent.transport import WebtorrentTransport
from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, Dial, Dialled, SendRequest
from shared.content.messages import RequestChunk
from shared.errors import Cause, RemoteFailure
from shared.settings.config import Config, WebtorrentSettings
from tests.fakes.ports import free_port
from tests.fakes.tcp_tap import TcpTap, is_frame
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode

HOST = "127.0.0.1"
MARKER = b"the marker that the file holds, in clear for the test: " * 20
REF = "chunk-" + os.urandom(32).hex()
ID = b"r" * 16


class Tapped:
    """Node `near` reaches node `far` through a tap, and only so."""

    def __init__(self) -> None:
        self.near, self.far = WorkerNode(b"\x01" * 32), WorkerNode(b"\x02" * 32)
        self.near.members, self.far.members = [self.far.token], [self.near.token]
        self.far.bodies[REF] = MARKER * 500
        self._port = free_port(HOST)
        self.tap = TcpTap(HOST, self._port)
        self.endpoint = ""

    async def start(self) -> None:
        await self.near.start(_transport(free_port(HOST)))
        await self.far.start(_transport(self._port))
        await until(lambda: self.far.status and self.near.status)
        self.endpoint = await self.tap.start(HOST)

    async def stop(self) -> None:
        await self.near.stop()
        await self.far.stop()
        await self.tap.stop()

    async def dial(self, peer: str) -> Dialled:
        subject = self.near.subjects.dial("webtorrent")
        return await self.near.caller.request(subject, Dial(peer, [self.endpoint]), Dialled, timeout_s=10.0)

    async def ask(self) -> None:
        link = self.near.subjects.link("webtorrent", self.far.token)
        call = SendRequest(ID, "manager-1", 1, RequestChunk(REF))
        await self.near.caller.request(link, call, Accepted, timeout_s=5.0)


@pytest.fixture
async def tapped() -> AsyncIterator[Tapped]:
    tapped = Tapped()
    await tapped.start()
    yield tapped
    await tapped.stop()


async def test_a_tap_sees_no_marker_no_ref_and_no_key(tapped: Tapped) -> None:
    near, far = tapped.near, tapped.far
    await tapped.dial(far.token)
    await tapped.ask()
    await until(lambda: near.answers)
    body = near.answers[0].body
    assert body is not None
    assert await bodies.pull(near.puller, near.subjects, body, timeout_s=5.0) == far.bodies[REF]
    seen = bytes(tapped.tap.seen)
    assert len(seen) > len(far.bodies[REF]), "the body passed the tap"
    assert b"BitTorrent protocol" in seen
    assert b"swarm-space" in seen
    secrets = [MARKER[:32], REF.encode(), REF[6:].encode(), bytes.fromhex(REF[6:])]
    for node in (near, far):
        for key in (node.seed, node.key):
            secrets += [key, key.hex().encode(), base64.b64encode(key)]
        secrets.append(node.token.encode())
    assert not [secret for secret in secrets if secret in seen]


async def test_another_key_than_the_expected_one_is_refused(tapped: Tapped) -> None:
    wanted = WorkerNode(b"\x03" * 32)
    with pytest.raises(RemoteFailure) as refusal:
        await tapped.dial(wanted.token)
    assert refusal.value.cause is Cause.UNAUTHENTICATED


@pytest.mark.parametrize("fault", ["replayed", "reordered", "changed"])
async def test_who_meddles_with_records_closes_the_link(tapped: Tapped, fault: str) -> None:
    await tapped.dial(tapped.far.token)
    held: list[bytes] = []

    def meddle(message: bytes) -> bytes:
        if not is_frame(message):
            return message
        held.append(message)
        if fault == "replayed":
            return message + message
        if fault == "changed":
            return message[:-1] + bytes([message[-1] ^ 1])
        return b"" if len(held) == 1 else message + held[0]

    tapped.tap.meddle = meddle
    await tapped.ask()
    await until(lambda: tapped.near.failures)
    assert tapped.near.failures[0].cause is Cause.UNAUTHENTICATED
    assert tapped.near.answers == []


def _transport(port: int) -> WebtorrentTransport:
    settings = WebtorrentSettings(host=HOST, port=port, dht=False, trackers=False)
    return WebtorrentTransport(Config(webtorrent=settings))
