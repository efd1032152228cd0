"""Circuits on a manager with its bus, in virtual time: what proves a link good closes them, and they never starve."""

from __future__ import annotations

import asyncio

import pytest

from services.manager.routing.breaker import BACKOFF_CAP_MS
from shared.bus import calls
from shared.bus.messages.records import HopRecord
from shared.clock import unix_ms
from shared.errors import Cause
from shared.ids import peer_name
from shared.transports import TransportName
from tests.fakes.virtual_time import run_virtual
from tests.services.manager.node import PEER, SUBJECTS, Node, answer, fail, hops
from tests.services.manager.rig import BROADCAST, WEBRTC, WEBTORRENT
from tests.services.manager.test_inbound import ask, start_chunk

BACK_WITHIN_S = 10.0
PACE_S = 1.0


async def with_open_circuit(node: Node, transport: TransportName, openings: int = 10) -> None:
    """By records of another manager: it has failed again and again, so that its back-off is long."""
    for number in range(openings * 5):
        failed = HopRecord(
            f"d{number}", 1, transport.value, peer_name(PEER), "failed", Cause.CLOSED,
            "", None, False, unix_ms(), 1.0, 0, "", "", "another",
        )  # fmt: skip
        await node.caller.append(SUBJECTS.hop(transport), failed, f"d{number}")
        await asyncio.sleep(0.02)


async def keep_asking(node: Node) -> None:
    """The peer's own requests over webrtc, one a second."""
    while True:
        await ask(node, "webrtc")
        await asyncio.sleep(PACE_S)


@pytest.mark.parametrize("peer_asks", [True, False])
def test_a_transport_is_back_within_ten_seconds_of_its_recovery(peer_asks: bool) -> None:
    """Its back-off is at the cap. The peer's own requests over the link must not put the probes off."""

    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        node = Node(loop.time)
        await node.start()
        await start_chunk(node, "chunk-a")
        await node.warm()
        asking = loop.create_task(keep_asking(node)) if peer_asks else None
        await with_open_circuit(node, WEBRTC)
        node.workers[WEBRTC].behave = fail(Cause.CLOSED)
        for _ in range(60):
            await node.deliver()
            await asyncio.sleep(PACE_S)
        failed = sum((record.transport, record.outcome) == ("webrtc", "failed") for record in node.records[50:])
        node.workers[WEBRTC].behave = answer
        recovered_at = loop.time()
        while loop.time() < recovered_at + BACKOFF_CAP_MS / 1000:
            if [hops(await node.deliver()) for _ in range(4)] == [[("webrtc", "confirmed", "")]] * 4:
                break
            await asyncio.sleep(PACE_S)
        back_s = loop.time() - recovered_at
        if asking is not None:
            asking.cancel()
        await node.close()
        return back_s, failed

    back_s, failed = run_virtual(main, [calls])
    assert back_s <= BACK_WITHIN_S
    assert failed <= 35, "and while it is bad, a delivery in two takes no detour"


def test_a_guest_that_cannot_be_probed_is_proved_good_by_its_own_requests() -> None:
    """As for a member; only its requests are left, for nobody can dial it."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        node = Node(loop.time)
        await node.start()
        await start_chunk(node, "chunk-a")
        await node.warm()
        await with_open_circuit(node, WEBRTC)
        for worker in node.workers.values():
            worker.dial_cause = Cause.PEER_UNKNOWN
        asking = loop.create_task(keep_asking(node))
        recovered_at = loop.time()
        while hops(await node.deliver())[0] != ("webrtc", "confirmed", ""):
            await asyncio.sleep(PACE_S)
        back_s = loop.time() - recovered_at
        asking.cancel()
        await node.close()
        return back_s

    assert run_virtual(main, [calls]) <= BACK_WITHIN_S


@pytest.mark.parametrize("linked", [True, False])
def test_an_open_circuit_on_the_last_usable_transport_does_not_refuse(linked: bool) -> None:
    async def main() -> list[str]:
        node = Node(asyncio.get_running_loop().time)
        await node.start(linked=(WEBRTC,) if linked else ())
        for transport in (WEBTORRENT, BROADCAST):
            await node.flags.set(transport, False)
        await with_open_circuit(node, WEBRTC)
        outcomes = [(await node.deliver()).outcome for _ in range(20)]
        await node.close()
        return outcomes

    assert run_virtual(main, [calls]) == ["confirmed"] * 20
