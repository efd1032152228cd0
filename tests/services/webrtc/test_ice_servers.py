"""STUN and TURN servers, each with a state of its own: one that does not answer costs no dial anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.webrtc import ice_servers
from services.webrtc.ice_servers import IceServers
from shared.clock import monotonic
from shared.errors import Cause
from shared.settings.rendezvous import IceServer
from tests.fakes.waiting import until
from tests.services.webrtc.conftest import MakeNode
from tests.services.webrtc.node import Node
from tests.services.webrtc.test_workers import ready

DIAL_WITHIN_S = 3.0


class Stun(asyncio.DatagramProtocol):
    """Answers Binding and Allocate with nothing but a header, or, while it is silent, not at all."""

    def __init__(self) -> None:
        self.silent = False
        self.questions = 0
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.questions += 1
        if not self.silent:
            refused = data[1] == 3
            kind = (b"\x01\x13" if refused else b"\x01\x01") + bytes(2)
            self.transport.sendto(kind + data[4:20], addr)

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])


@asynccontextmanager
async def stun() -> AsyncIterator[Stun]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(Stun, ("127.0.0.1", 0))
    yield server
    transport.close()


@asynccontextmanager
async def watching(*servers: IceServer) -> AsyncIterator[IceServers]:
    watched = IceServers(lambda: list(servers), monotonic, lambda: None)
    task = asyncio.create_task(watched.run())
    yield watched
    task.cancel()
    await asyncio.wait({task})


def nobody() -> str:
    """A port at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice_servers, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(ice_servers, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(ice_servers, "CHECK_EVERY_S", 0.05)


async def test_each_has_its_own_state_and_only_those_that_answer_are_used() -> None:
    async with stun() as good, stun() as silent:
        silent.silent = True
        servers = [
            IceServer([f"stun:127.0.0.1:{silent.port}"]),
            IceServer([f"stun:{nobody()}"]),
            IceServer([f"turn:127.0.0.1:{good.port}", f"turn:{nobody()}"], "name", "word"),
            IceServer([f"turn:{nobody()}?transport=tcp"], "name", "word"),
            IceServer([f"stun:127.0.0.1:{good.port}"]),
        ]
        async with watching(*servers) as watched:
            await until(lambda: all(watched.place(one, 0).state != "connecting" for one in servers))
            places = [watched.place(server, index) for index, server in enumerate(servers)]
            assert [place.state for place in places] == ["waiting", "waiting", "open", "waiting", "open"]
            assert [place.cause for place in places] == [Cause.SILENT, Cause.REFUSED, None, Cause.REFUSED, None]
            assert places[0].retry_ms > 0
            turn = f"turn:127.0.0.1:{good.port}"
            assert watched.answering() == (IceServer([turn], "name", "word"), servers[4])


async def test_one_that_falls_silent_is_left_out_and_one_that_answers_again_is_used() -> None:
    async with stun() as server:
        member = IceServer([f"stun:127.0.0.1:{server.port}"])
        async with watching(member) as watched:
            await until(watched.answering)
            server.silent = True
            await until(lambda: not watched.answering())
            assert watched.place(member, 0).cause is Cause.SILENT
            server.silent = False
            await until(watched.answering)
            assert watched.place(member, 0).cause is None


async def test_back_off_grows_to_its_cap_and_is_each_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice_servers, "RETRY_CAP_S", 0.2)
    async with stun() as good, stun() as silent:
        silent.silent = True
        members = [IceServer([f"stun:127.0.0.1:{one.port}"]) for one in (good, silent)]
        async with watching(*members):
            await until(lambda: silent.questions >= 3 * ice_servers.QUESTIONS)
            assert good.questions > silent.questions / ice_servers.QUESTIONS


async def test_a_server_that_does_not_answer_costs_a_dial_nothing(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field's case: `stun:127.0.0.1:9` made every offer take longer than a dial may."""
    monkeypatch.setattr(ice_servers, "RETRY_FIRST_S", 1_000.0)
    async with stun() as silent:
        silent.silent = True
        nodes = await make_node("a"), await make_node("b")
        for node in nodes:
            node.write_ice([f"stun:127.0.0.1:{silent.port}", f"stun:{nobody()}"])
        await ready(*nodes)
        await until(lambda: [state(node) for node in nodes] == [["waiting", "waiting"]] * 2)
        asked = silent.questions
        started = monotonic()
        await nodes[0].worker.transport.dial(nodes[1].hint, DIAL_WITHIN_S)
        print(f"dialled in {1000 * (monotonic() - started):.0f} ms beside two servers that do not answer")
        await until(lambda: nodes[1].worker.ups)
        assert silent.questions == asked, "a dial asks nobody who did not answer before"


def state(node: Node) -> list[str]:
    return [one.state for one in node.worker.transport.meeting_places() if one.list == "iceServers"]
