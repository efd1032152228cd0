"""Two nodes with one worker each, over a transport in memory, in any speech: `near` asks `far`."""

from __future__ import annotations

from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import RequestChunk
from shared.speech.contract import SEALED_NATIVE
from shared.transport.contract import Capabilities
from tests.fakes.json_speech import JSON, MAX_RECORD_BYTES
from tests.fakes.loop_transport import LoopNet, LoopTransport
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode

BODY = bytes(range(256)) * 4096 + b"the tag of 16 by"
ID = b"r" * 16


class WholeLoop(LoopTransport):
    """Takes records as long as a whole body in JSON."""

    capabilities = Capabilities(MAX_RECORD_BYTES, ordered=True, reliable=True, dials_guests=True)


class Couple:
    """Node `near` asks node `far`, which holds BODY as `chunk-a`. `link` has one of them dial the other."""

    def __init__(
        self, speech: str = SEALED_NATIVE, *, near_dials: bool = True, node: type[WorkerNode] = WorkerNode
    ) -> None:
        self.net = LoopNet()
        self.speech, self.near_dials = speech, near_dials
        self.sealed = speech == SEALED_NATIVE
        self.near = node(b"\x01" * 32, sealed=self.sealed)
        self.far = node(b"\x02" * 32, sealed=self.sealed)
        # In trust.members whatever they are: an id that no seal proves must not make anybody a member.
        self.near.members, self.far.members = [self.far.token], [self.near.token]
        self.far.bodies["chunk-a"] = BODY
        kind = WholeLoop if speech == JSON else LoopTransport
        self.near_transport = kind(self.net, speech=speech)
        self.far_transport = kind(self.net, speech=speech)

    async def start(self, *, chunk_instances: int = 1) -> None:
        await self.near.start(self.near_transport)
        await self.far.start(self.far_transport, chunk_instances=chunk_instances)
        await until(lambda: len(self.net.listening) == 2)

    async def link(self) -> None:
        """A link over which near may ask, dialled by whichever of them is to."""
        if not self.near_dials:
            await self.far.dial(self.near.token)
            await until(lambda: self.near.status and self.near.status.peers)
        await self.near.dial(self.far.token)

    async def stop(self) -> None:
        await self.near.stop()
        await self.far.stop()

    async def send(self, request_id: bytes = ID, manager: str = "manager-1", ref: str = "chunk-a") -> Accepted:
        subject = self.near.subjects.link("webrtc", self.far.token)
        call = SendRequest(request_id, manager, 1, RequestChunk(ref))
        return await self.near.caller.request(subject, call, Accepted, timeout_s=5.0)
