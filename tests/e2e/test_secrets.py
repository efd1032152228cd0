"""Everything that two nodes export, publish for views and log while files move and transports fail, scanned.

Printed output is scanned in test_demo.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.supervisor.demo.story import Story
from services.supervisor.demo.view import JsonView
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import NAMES, Pair
from shared.bus.messages.subjects import Subjects
from shared.bus.nats.connection import ConnectionOptions, NatsConnection, OnMessage
from shared.bus.serving import BusCounts
from shared.content.keys import identity_seed, public_key, publish_seed
from shared.ids import member_token

pytestmark = pytest.mark.e2e

SIZE_MIB = 12
VIEWS = ("diagnostic", "link", "spans", "status", "transfer")
HOPS = "hop"
PATTERNS = {
    "a hash or an infohash": re.compile(rb"[0-9a-f]{40}"),
    "a ref": re.compile(rb"chunk-[0-9a-f]{16}"),
    "a link": re.compile(rb"swarmbridge:[0-9a-f]"),
    "a peer token": re.compile(rb"\bk[a-z2-7]{52}"),
    "an address": re.compile(rb"127\.0\.0\.\d"),
    "SDP or a candidate": re.compile(rb"candidate:|a=fingerprint|ice-ufrag|m=application"),
    "a seed": re.compile(rb"SU[A-Z2-7]{40}"),
}
DIGEST = re.compile("[0-9a-f]{64}")
# What nats-server itself says about where it listens is no telemetry of ours.
OWN_LOGS = "node-*/logs/*.log"


class Collected:
    """Bytes by where they came from."""

    def __init__(self) -> None:
        self.by_source: dict[str, list[bytes]] = {}

    def add(self, source: str, data: bytes) -> None:
        self.by_source.setdefault(source, []).append(data)

    def hearing(self, source: str) -> OnMessage:
        """For a subscription."""

        def heard(subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
            self.add(source, data)

        return heard

    async def take_otlp(self, request: web.Request) -> web.Response:
        self.add("OTLP", await request.read())
        return web.Response(content_type="application/x-protobuf")


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture
async def otlp_endpoint(collected: Collected) -> AsyncIterator[str]:
    application = web.Application(client_max_size=2**26)
    application.add_routes([web.post("/v1/traces", collected.take_otlp)])
    async with TestServer(application) as server:
        yield str(server.make_url("/"))


async def listen(pair: Pair, collected: Collected) -> list[NatsConnection]:
    """Hear what both nodes publish for views, as their admins."""
    connections = []
    for node, (url, seed_file) in pair.admin.items():
        options = ConnectionOptions(url, f"admin-{node}", seed_file.read_text().strip(), service="admin")
        connection = NatsConnection(options, BusCounts())
        await connection.open()
        connections.append(connection)
        subjects = Subjects(node)
        for what in VIEWS:
            await connection.subscribe(subjects.event(what), collected.hearing(what))
        await connection.subscribe(subjects.hop("*"), collected.hearing(HOPS))
    return connections


def known_secrets(work: Path, digests: list[str]) -> dict[str, bytes]:
    """The very secrets of this run, raw and as text."""
    found = {f"what is stored as {number}": bytes.fromhex(digest) for number, digest in enumerate(digests)}
    for name in NAMES:
        root = (work / f"node-{name}" / "root.key").read_bytes()
        key = public_key(identity_seed(root))
        found |= {f"root of {name}": root, f"identity of {name}": key, f"token of {name}": member_token(key).encode()}
        found[f"publishing key of {name}"] = public_key(publish_seed(root))
        found[f"operator's token of {name}"] = (work / f"node-{name}" / "gateway.token").read_bytes().strip()
    found["infohash"] = hashlib.sha1(b"swarm-space:public", usedforsecurity=False).digest()
    return found


async def test_telemetry_views_and_logs_hold_no_secret(
    tmp_path: Path, collected: Collected, otlp_endpoint: str
) -> None:
    work, sources = tmp_path / "pair", tmp_path / "sources"
    sources.mkdir()
    pair = Pair(work, otlp_endpoint=otlp_endpoint)
    connections: list[NatsConnection] = []
    try:
        await pair.start(find_binary())
        connections = await listen(pair, collected)
        await Story(pair.a, pair.b, JsonView(), sources, SIZE_MIB, []).tell()
        for node in (pair.a, pair.b):
            collected.add("metrics", (await node.api.metrics()).encode())
    finally:
        for connection in connections:
            await connection.close()
        await pair.clear(keep=True)
    for log in work.glob(OWN_LOGS):
        collected.add("logs", log.read_bytes())
    assert {*VIEWS, HOPS, "OTLP", "metrics", "logs"} <= set(collected.by_source)
    digests = [path.stem for path in (work / "node-b" / "store").rglob("*") if DIGEST.fullmatch(path.stem)]
    assert len(digests) >= SIZE_MIB
    secrets = known_secrets(work, digests)
    found = {
        f"{kind} in {source}"
        for source, parts in collected.by_source.items()
        for data in parts
        for kind in (
            *(kind for kind, pattern in PATTERNS.items() if pattern.search(data)),
            *(name for name, secret in secrets.items() if secret in data or secret.hex().encode() in data),
        )
    }
    assert found == set()
