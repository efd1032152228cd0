"""A sealed request over the mesh of a real server: two nodes, each in its account, meeting in the account `mesh`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.broadcast.transport import BroadcastTransport
from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.bus.nats import bus as nats_bus
from shared.content.messages import RequestChunk
from shared.errors import Cause, RemoteFailure
from tests.fakes.nats_server import nats_server
from tests.fakes.nats_users import accounts_config
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.services.broadcast.conftest import CHANNEL, ORIGIN

BODY = bytes(range(256)) * 4096


async def test_a_chunk_crosses_two_nodes_over_the_mesh(tmp_path: Path) -> None:
    config, seeds = accounts_config(["n1", "n2"])
    near, far = WorkerNode(b"\x01" * 32), WorkerNode(b"\x02" * 32)
    near.members, far.members = [far.token], [near.token]
    far.bodies["chunk-a"] = BODY
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(tmp_path, config))
        for account, node in (("n1-mesh", near), ("n2-mesh", far)):
            mesh = await nats_bus.connect(
                server.url,
                f"broadcast-{account}",
                seed=seeds[account, "broadcast"],
                service="broadcast",
            )
            stack.push_async_callback(mesh.close)
            await node.start(BroadcastTransport(mesh, ORIGIN, CHANNEL))
            stack.push_async_callback(node.stop)
        await until(lambda: near.status is not None and near.status.state == "ready")
        await until(lambda: far.status is not None and far.status.state == "ready")

        await near.dial(far.token, "broadcast")
        subject = near.subjects.link("broadcast", far.token)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk("chunk-a"))
        await near.caller.request(subject, call, Accepted, timeout_s=5.0)
        await until(lambda: near.answers)
        answer = near.answers[0]
        assert answer.body is not None
        assert await bodies.pull(near.puller, near.subjects, answer.body, timeout_s=5.0) == BODY
        stamp = far.asked[0].stamp
        assert (stamp.transport, stamp.role, stamp.peer) == ("broadcast", "member", near.token)

        with pytest.raises(RemoteFailure) as refusal:
            await near.dial(WorkerNode(b"\x04" * 32).token, "broadcast")
        assert refusal.value.cause is Cause.NO_LISTENER
