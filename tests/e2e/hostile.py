"""Ends that lie: a chunk service in the place of a node's own, and somebody under a node's PeerJS id.

The hostile chunk service has the node's root key and its bus user, as one that was taken over would: the node's
real workers carry its answers over real sealed links. The impostor has no key but its own.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import cast

from services.chunk.identity import Identity
from services.supervisor.machine.node import Node
from services.webrtc.transport import WebrtcTransport
from shared.bus.bodies import BodyHolder
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Certify, Inbound, InboundAnswer, PeerjsToken, PeerjsTokenRequest
from shared.bus.messages.subjects import QUEUE_CHUNK, Subjects
from shared.bus.nats import bus as nats_bus
from shared.clock import unix_ms
from shared.content.chunks import MAX_CIPHER_BYTES, encrypt_chunk
from shared.content.keys import publish_seed
from shared.content.link import ContentLink, format_link
from shared.content.manifest import (
    IV_BYTES,
    KEY_BYTES,
    ContentClass,
    Manifest,
    ManifestDraft,
    new_file_id,
    sign_manifest,
)
from shared.content.messages import ChunkData, ManifestData, NotFound, PeerRequest, RequestChunk
from shared.errors import Cause, RemoteFailure, SwarmbridgeError
from shared.ids import PeerToken, new_instance_id, token_key
from shared.rtc import available
from shared.rtc.contract import LinkFactory
from shared.rtc.link import DataChannelLink
from shared.settings.config import WebrtcSettings
from shared.settings.rendezvous_follower import DocumentFollower
from tests.e2e.why_scene import TRANSPORTS
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode

FILE_BYTES = 64 * 1024
MAX_BODIES_BYTES = 64 * 2**20
MIME = "application/octet-stream"
NAME = "film.bin"


@dataclass(frozen=True, slots=True)
class Forged:
    """A file of one chunk, good in itself."""

    manifest: Manifest
    header: ChunkData
    cipher: bytes
    link: str


class HostileChunk:
    """Serves what `chunk` serves to workers and peers. Good answers, but where `lie` says otherwise.

    start: after the node's own was killed. asked: the requests of peers that came so far.
    """

    def __init__(self, node: Node) -> None:
        home = node.plan.config.home
        self._root = (home / "root.key").read_bytes()
        self._identity = Identity(self._root)
        self._url = node.plan.nats_url
        self._seed = node.plan.seeds["chunk"].node.read_text().strip()
        self._subjects = Subjects(node.name)
        self._files: dict[str, Forged] = {}
        self._lie: Lie | None = None
        self._bus: nats_bus.NatsBus | None = None
        self._bodies: BodyHolder | None = None
        self._puller = ""
        self.asked: list[Inbound] = []

    async def start(self) -> None:
        instance = new_instance_id("chunk")
        bus = await nats_bus.connect(self._url, instance, seed=self._seed, service="chunk")
        self._bus = bus
        self._bodies = BodyHolder(bus, self._subjects, max_total_bytes=MAX_BODIES_BYTES)
        await self._bodies.start()
        identity, subjects = self._identity, self._subjects
        await bus.serve(subjects.certify, Certify, identity.certify, queue=QUEUE_CHUNK)
        await bus.serve(subjects.peerjs_token, PeerjsTokenRequest, identity.peerjs_token, queue=QUEUE_CHUNK)
        await bus.serve(subjects.chunk_message, Inbound, self._answer, queue=QUEUE_CHUNK)

    async def stop(self) -> None:
        """Be gone, with nobody in its place."""
        if self._bodies is not None:
            await self._bodies.close()
        if self._bus is not None:
            await self._bus.close()
        self._bus = self._bodies = None

    def file(self) -> Forged:
        """A new file that this node is said to hold, and does."""
        key, iv, now_ms = os.urandom(KEY_BYTES), os.urandom(IV_BYTES), unix_ms()
        header, cipher = encrypt_chunk(
            os.urandom(FILE_BYTES), key=key, iv=iv, seq=0, total=1, mime=MIME, original_name=NAME
        )
        draft = ManifestDraft(
            file_id=new_file_id(now_ms, os.urandom(8)),
            refs=[header.ref],
            ivs=[iv],
            size=FILE_BYTES,
            mime=MIME,
            name=NAME,
            key=key,
            content_class=ContentClass.SHARED,
            created_ms=now_ms,
        )
        manifest = sign_manifest(draft, publish_seed(self._root), now_ms)
        link = format_link(ContentLink(manifest.digest, (self._identity.token,)))
        forged = Forged(manifest, header, cipher, link)
        self._files[manifest.digest] = self._files[header.ref] = forged
        return forged

    async def new_link(self) -> str:
        """Of a new file of one chunk."""
        return self.file().link

    def lies(self, answer: Answer, over: Collection[str] = TRANSPORTS, about: type[PeerRequest] | None = None) -> None:
        """From now on answer so, over these transports, to requests of this kind (None: to any)."""
        self._lie = Lie(answer, over, about)

    def is_honest(self) -> None:
        self._lie = None

    def chunk(self, file: Forged, cipher: bytes, header: ChunkData | None = None) -> InboundAnswer:
        assert self._bodies is not None
        return InboundAnswer(header or file.header, self._bodies.hold(cipher, self._puller))

    def manifest(self, file: Forged, text: bytes) -> InboundAnswer:
        assert self._bodies is not None
        return InboundAnswer(ManifestData(file.manifest.digest), self._bodies.hold(text, self._puller))

    async def _answer(self, call: Inbound, incoming: Incoming) -> InboundAnswer:
        self.asked.append(call)
        self._puller = call.stamp.transport
        asked = call.request.ref if isinstance(call.request, RequestChunk) else call.request.id
        file = self._files.get(asked)
        if file is None:
            return InboundAnswer(NotFound(asked), None)
        lie = self._lie
        if lie is not None and lie.is_reported(call):
            return await lie.answer(self, call.request, file)
        return await good(self, call.request, file)


Answer = Callable[[HostileChunk, PeerRequest, Forged], Awaitable[InboundAnswer]]


@dataclass(frozen=True, slots=True)
class Lie:
    """See HostileChunk.lies."""

    answer: Answer
    over: Collection[str]
    about: type[PeerRequest] | None

    def is_reported(self, call: Inbound) -> bool:
        return call.stamp.transport in self.over and (self.about is None or isinstance(call.request, self.about))


# ── answers ──


async def good(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
    if isinstance(request, RequestChunk):
        return service.chunk(file, file.cipher)
    return service.manifest(file, file.manifest.canonical)


async def damaged(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
    """One bit of the chunk is another; a manifest is another's."""
    if isinstance(request, RequestChunk):
        return service.chunk(file, file.cipher[:-1] + bytes((file.cipher[-1] ^ 1,)))
    return service.manifest(file, service.file().manifest.canonical)


async def unreadable(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
    """What parses as no manifest."""
    return service.manifest(file, b'{"chunks": [')


async def oversized(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
    """More than any chunk has, and less than would break the link."""
    return service.chunk(file, bytes(MAX_CIPHER_BYTES + 1))


def refusing(cause: Cause, retry_after_s: float = 0.0) -> Answer:
    async def refuse(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
        raise RemoteFailure(cause, retry_after_s)

    return refuse


class LaterCause(StrEnum):
    """Of a version to come."""

    SOLAR_FLARE = "solar_flare"


async def failing_for_a_later_cause(service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
    """Nothing checks a cause on its way out: the word goes onto the bus as it is."""
    raise SwarmbridgeError(cast(Cause, LaterCause.SOLAR_FLARE))


@dataclass
class Stall:
    """Takes a request and answers it when `release` is set, if ever. asked: one has come."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, service: HostileChunk, request: PeerRequest, file: Forged) -> InboundAnswer:
        self.asked.set()
        await self.release.wait()
        return await good(service, request, file)


# ── somebody else under a node's PeerJS id ──


class _Borrowed(WebrtcTransport):
    """Registers under the PeerJS id of another node's key."""

    borrowed: bytes = b""

    def set_identity(self, identity_key: bytes) -> None:
        super().set_identity(self.borrowed)


class _Nowhere(DataChannelLink):
    """Answers with addresses that are nobody's (RFC 5737), to which the dialler's own rule sends nothing, and sends
    nothing to the dialler's, who would find the way back from it.
    """

    async def accept_offer(self, sdp: str) -> str:
        sdp = re.sub(r"a=candidate:[^\r\n]*\r\n", "", sdp)
        return re.sub(r"(a=candidate:\S+ \d+ \S+ \d+ )\S+", r"\g<1>192.0.2.1", await super().accept_offer(sdp))


def _load_nowhere() -> LinkFactory:
    available.load()
    return _Nowhere


class Impostor:
    """Holds a node's PeerJS id at the rendezvous, with a token and a key of its own, and answers who dials it.

    leads_nowhere: with addresses at which there is nobody.
    """

    def __init__(self, node: Node, token: PeerToken, *, leads_nowhere: bool = False) -> None:
        self._document = Path(node.plan.config.rendezvous.document)
        self._node = WorkerNode(os.urandom(32))
        self._key = token_key(token)
        self._load = _load_nowhere if leads_nowhere else available.load

    async def start(self) -> None:
        """Returns when it has the id, which must be free."""
        node = self._node

        async def token(call: PeerjsTokenRequest, incoming: Incoming) -> PeerjsToken:
            return PeerjsToken(node.seed.hex())

        await node.hub.bus("chunk-tokens").serve(node.subjects.peerjs_token, PeerjsTokenRequest, token)
        watch = DocumentFollower(str(self._document))
        bus = node.hub.bus("worker-1")
        transport = _Borrowed(bus, node.subjects, WebrtcSettings(host="127.0.0.1"), watch, load=self._load)
        assert self._key is not None
        transport.borrowed = self._key
        await node.start(transport)
        await until(lambda: node.status and node.status.state == "ready", 15.0)

    async def stop(self) -> None:
        await self._node.stop()
