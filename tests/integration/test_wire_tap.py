"""What somebody between two webtorrent workers sees: a BitTorrent handshake, and nothing of what they say."""

from __future__ import annotations

import base64
import os

from services.webtorrent.transport import WebtorrentTransport
from shared.bus import bodies
from shared.bus.envelopes import Accepted, Dial, Dialled, SendRequest
from shared.content.messages import RequestChunk
from shared.settings.config import Config, WebtorrentSettings
from tests.fakes.ports import free_port
from tests.fakes.tcp_tap import TcpTap
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode

HOST = "127.0.0.1"
MARKER = b"the marker that the file holds, in clear for the test: " * 20
REF = "chunk-" + os.urandom(32).hex()


async def test_a_tap_sees_no_marker_no_ref_and_no_key() -> None:
    near, far = WorkerNode(b"\x01" * 32), WorkerNode(b"\x02" * 32)
    near.members, far.members = [far.token], [near.token]
    far.bodies[REF] = MARKER * 500
    port = free_port(HOST)
    tap = TcpTap(HOST, port)
    await near.start(_transport(free_port(HOST)))
    await far.start(_transport(port))
    try:
        await until(lambda: far.status and near.status)
        through_tap = await tap.start(HOST)
        await _dial(near, far, through_tap)
        link = near.subjects.link("webtorrent", far.token)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk(REF))
        await near.asker.request(link, call, Accepted, timeout_s=5.0)
        await until(lambda: near.answers)
        body = near.answers[0].body
        assert body is not None
        assert await bodies.pull(near.asker, near.subjects, body, timeout_s=5.0) == far.bodies[REF]
    finally:
        await near.stop()
        await far.stop()
        await tap.stop()
    seen = bytes(tap.seen)
    assert len(seen) > len(far.bodies[REF]), "the body passed the tap"
    assert b"BitTorrent protocol" in seen
    assert b"swarm-space" in seen
    secrets = [MARKER[:32], REF.encode(), REF[6:].encode(), bytes.fromhex(REF[6:])]
    for node in (near, far):
        for key in (node.seed, node.key):
            secrets += [key, key.hex().encode(), base64.b64encode(key)]
        secrets.append(node.token.encode())
    assert not [secret for secret in secrets if secret in seen]


def _transport(port: int) -> WebtorrentTransport:
    settings = WebtorrentSettings(host=HOST, port=port, dht=False, trackers=False)
    return WebtorrentTransport(Config(webtorrent=settings))


async def _dial(near: WorkerNode, far: WorkerNode, endpoint: str) -> None:
    subject = near.subjects.dial("webtorrent")
    await near.asker.request(subject, Dial(far.token, [endpoint]), Dialled, timeout_s=10.0)
