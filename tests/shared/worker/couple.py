"""Two nodes with one worker each, sealed, over a transport in memory: `near` asks `far`."""

from __future__ import annotations

from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import RequestChunk
from tests.fakes.loop_transport import LoopNet, LoopTransport
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode

BODY = bytes(range(256)) * 4096 + b"the tag of 16 by"
ID = b"r" * 16


class Couple:
    """Node `near` asks node `far`, which holds BODY as `chunk-a`."""

    def __init__(self) -> None:
        self.net = LoopNet()
        self.near, self.far = WorkerNode(b"\x01" * 32), WorkerNode(b"\x02" * 32)
        self.near.members, self.far.members = [self.far.token], [self.near.token]
        self.far.bodies["chunk-a"] = BODY
        self.near_transport, self.far_transport = LoopTransport(self.net), LoopTransport(self.net)

    async def start(self, *, chunk_instances: int = 1) -> None:
        await self.near.start(self.near_transport)
        await self.far.start(self.far_transport, chunk_instances=chunk_instances)
        await until(lambda: len(self.net.listening) == 2)

    async def stop(self) -> None:
        await self.near.stop()
        await self.far.stop()

    async def send(self, request_id: bytes = ID, manager: str = "manager-1", ref: str = "chunk-a") -> Accepted:
        subject = self.near.subjects.link("webrtc", self.far.token)
        call = SendRequest(request_id, manager, 1, RequestChunk(ref))
        return await self.near.asker.request(subject, call, Accepted, timeout_s=5.0)
