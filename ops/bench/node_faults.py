"""What is done to the whole nodes, and what the caller sees of it. One function a fault, each with its own baseline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ops.bench.nodes import PRIMARY, SECOND, Nodes
from ops.bench.rounds import Rounds
from ops.bench.samples import Measured, Sample
from services.supervisor.machine.processes import Child
from shared.transports import ORDER

BURST = 6
"""Small deliveries in flight when a peer falls silent."""
LARGE_BURST = 3
"""1 MiB each: what services.supervisor.machine.pair gives as a window, so that the queue on a link is as in use."""
STRIKE_AFTER_S = 0.03
"""A 1 MiB chunk takes longer than this over a data channel (docs/data-channels.md), so it is hit in the middle."""
QUIET_S = 0.3
"""Longer than services.manager.routing.rank.LINK_QUIET_S, for which a link that gave anything counts as at work."""
COLD_BASELINE = 24

Fault = Callable[[Nodes, Rounds], Awaitable[Measured]]


async def no_link(nodes: Nodes, rounds: Rounds) -> Measured:
    """B's webrtc worker is gone: nobody answers its link subject (NATS 503). One delivery after another."""
    healthy = [await nodes.caller.deliver(nodes.small) for _ in range(rounds.count)]
    worker = nodes.worker(PRIMARY)
    await worker.kill()
    try:
        faulty = await _one_by_one(nodes, rounds)
    finally:
        worker.start()
    await nodes.all_linked()
    return Measured(healthy, faulty)


async def silent_peer(nodes: Nodes, rounds: Rounds) -> Measured:
    """A's webrtc worker is stopped: B's link is up, requests are accepted, nothing ever comes back.

    The link has just given answers: to the manager it is at work.
    """
    return await _freezing(nodes, nodes.far_worker(PRIMARY), rounds)


async def silent_peer_quiet_link(nodes: Nodes, rounds: Rounds) -> Measured:
    """The same after QUIET_S without a delivery: what the manager has learnt of the link's round trip decides."""
    return await _freezing(nodes, nodes.far_worker(PRIMARY), rounds, quiet_s=QUIET_S)


async def stopped_worker(nodes: Nodes, rounds: Rounds) -> Measured:
    """B's own webrtc worker is stopped (SIGSTOP) with 1 MiB chunks on their way through it."""
    return await _freezing(nodes, nodes.worker(PRIMARY), rounds, in_flight=True)


async def killed_worker(nodes: Nodes, rounds: Rounds) -> Measured:
    """B's own webrtc worker is killed (SIGKILL) with 1 MiB chunks on their way through it."""
    measured = Measured([], [])
    worker = nodes.worker(PRIMARY)
    for _ in rounds:
        measured.healthy.extend(await nodes.caller.burst(nodes.large, LARGE_BURST))
        burst = asyncio.create_task(nodes.caller.burst(nodes.large, LARGE_BURST))
        await asyncio.sleep(STRIKE_AFTER_S)
        await worker.kill()
        measured.faulty.extend(await burst)
        worker.start()
        await nodes.all_linked()
    return measured


async def dead_peer_server(nodes: Nodes, rounds: Rounds) -> Measured:
    """The rendezvous is killed, B's webrtc worker has no link and cannot dial; the second link is open."""
    healthy = [await nodes.caller.deliver(nodes.small) for _ in range(rounds.count)]
    await nodes.rendezvous.kill()
    try:
        await nodes.restart(PRIMARY)
        await nodes.link(SECOND)
        faulty = await _one_by_one(nodes, rounds)
    finally:
        nodes.rendezvous.start()
    await nodes.all_linked()
    return Measured(healthy, faulty)


async def dead_peer_server_no_link(nodes: Nodes, rounds: Rounds) -> Measured:
    """The same, and B's other workers are new too: no link at all, everything has to be dialled."""
    measured = Measured([await nodes.caller.deliver(nodes.small) for _ in range(COLD_BASELINE)], [])
    for _ in rounds:
        await nodes.rendezvous.kill()
        try:
            await nodes.restart(*(transport.value for transport in ORDER))
            measured.faulty.append(await nodes.caller.deliver(nodes.small))
        finally:
            nodes.rendezvous.start()
        await nodes.all_linked()
    return measured


async def _one_by_one(nodes: Nodes, rounds: Rounds) -> list[Sample]:
    return [await nodes.caller.deliver(nodes.small) for _ in rounds]


async def _freezing(
    nodes: Nodes, victim: Child, rounds: Rounds, *, in_flight: bool = False, quiet_s: float = 0.0
) -> Measured:
    measured = Measured([], [])
    order, count = (nodes.large, LARGE_BURST) if in_flight else (nodes.small, BURST)
    for _ in rounds:
        measured.healthy.extend(await nodes.caller.burst(order, count))
        await asyncio.sleep(quiet_s)
        if not in_flight:
            nodes.freeze(victim)
        burst = asyncio.create_task(nodes.caller.burst(order, count))
        if in_flight:
            await asyncio.sleep(STRIKE_AFTER_S)
            nodes.freeze(victim)
        measured.faulty.extend(await burst)
        nodes.thaw(victim)
        await nodes.all_linked()
    return measured
