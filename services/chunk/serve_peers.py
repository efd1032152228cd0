"""Answers peers' requests for chunks and manifests.

A body is held for the transport that the request came over: no other worker gets it, whatever it knows.

*Back-pressure*: a body is held until the worker has pulled it; over HELD_BODIES_BYTES the answer is BUSY.
"""

from __future__ import annotations

from collections import OrderedDict

from opentelemetry.trace import Span, Status, StatusCode

from services.chunk.access import may_have, may_name
from services.chunk.index import ManifestIndex
from services.chunk.store import ChunkStore
from shared.bus.bodies import BodyHolder
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Inbound, InboundAnswer, Stamp
from shared.content.manifest import ContentClass
from shared.content.messages import ManifestData, NotFound, RequestChunk
from shared.content.refs import is_ref
from shared.errors import SwarmbridgeError
from shared.telemetry import names, tracer

HELD_BODIES_BYTES = 256 * 2**20
"""Cipher bytes waiting to be pulled by workers, an instance."""
HELD_BODY_TTL_S = 30.0
MAX_SERVED = 4096
"""Chunks that are remembered as served, the latest ones: 4 GiB of them, well over a receiver's time to ask again."""


class PeerServing:
    """Serves `sb.N.chunk.message`. What a peer may not have and what is not here are one answer: NotFound."""

    def __init__(self, store: ChunkStore, index: ManifestIndex, bodies: BodyHolder) -> None:
        self._store = store
        self._index = index
        self._bodies = bodies
        self._served: OrderedDict[str, bool] = OrderedDict()

    async def answer(self, inbound: Inbound, incoming: Incoming) -> InboundAnswer:
        """Raises: SwarmbridgeError(BUSY) where no body can be held just now."""
        is_chunk = isinstance(inbound.request, RequestChunk)
        with tracer().start_as_current_span(
            names.SPAN_CHUNK_SERVE, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(names.REQUEST_KIND, "chunk" if is_chunk else "manifest")
            try:
                answer = await self._answer(inbound)
            except SwarmbridgeError as error:
                span.set_attribute(names.ERROR_TYPE, error.cause.value)
                span.set_status(Status(StatusCode.ERROR))
                raise
            _describe(span, answer)
            return answer

    async def _answer(self, inbound: Inbound) -> InboundAnswer:
        request, stamp = inbound.request, inbound.stamp
        if isinstance(request, RequestChunk):
            return await self._chunk(request.ref, stamp)
        return await self._manifest(request.id, stamp)

    async def _chunk(self, ref: str, stamp: Stamp) -> InboundAnswer:
        content_class = await self._index.class_of(ref) if is_ref(ref) else None
        if content_class is None or not may_have(stamp.role, content_class):
            return _not_found(ref)
        # Who receives it hashes it. Who asks for it again may have found that it does not fit: then we look too.
        chunk = await self._store.get_chunk(ref, verify=self._served_lately(ref))
        if chunk is None:
            return _not_found(ref)
        header, cipher = chunk
        return InboundAnswer(header, self._bodies.hold(cipher, stamp.transport))

    async def _manifest(self, manifest_id: str, stamp: Stamp) -> InboundAnswer:
        summary = self._index.known(manifest_id)
        if summary is None:
            return _not_found(manifest_id)
        content_class = ContentClass(summary.content_class)
        if not may_have(stamp.role, content_class) or not may_name(content_class, manifest_id):
            return _not_found(manifest_id)
        manifest = await self._store.get_manifest(summary.digest)
        if manifest is None:
            return _not_found(manifest_id)
        return InboundAnswer(ManifestData(manifest_id), self._bodies.hold(manifest.canonical, stamp.transport))

    def _served_lately(self, ref: str) -> bool:
        """Whether it has been served already; notes that it is now."""
        known = self._served.pop(ref, False)
        self._served[ref] = True
        if len(self._served) > MAX_SERVED:
            self._served.popitem(last=False)
        return known


def _describe(span: Span, answer: InboundAnswer) -> None:
    span.set_attribute(names.FOUND, answer.body is not None)
    span.set_attribute(names.BODY_BYTES, answer.body.length if answer.body is not None else 0)


def _not_found(asked: str) -> InboundAnswer:
    return InboundAnswer(NotFound(asked), None)
