"""`swarmbridge why` against a remote peer that lies: each cause is made by its chunk service, then asked for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.content.messages import PeerRequest, RequestChunk, RequestManifest
from shared.errors import Cause
from tests.e2e.hostile import (
    Answer,
    HostileChunk,
    Stall,
    damaged,
    failing_for_a_later_cause,
    oversized,
    refusing,
    unreadable,
)
from tests.e2e.why_scene import (
    DEADLINE_S,
    TRANSPORTS,
    Scene,
    causes_of,
    hops_of,
    reasons_of,
    scene_of_two_nodes,
)

pytestmark = pytest.mark.e2e

LONG_S = 30.0
"""A wait that no delivery lasts for."""
STOP_S = 1.5
"""A manager that was stopped for a second lets go of what it had."""
CIRCUIT_TRIES = 20
OVER_WEBRTC: tuple[tuple[Answer, type[PeerRequest], str, str], ...] = (
    (damaged, RequestChunk, "integrity_mismatch", "what came over webrtc was not what was asked for"),
    (damaged, RequestManifest, "integrity_mismatch", "what came over webrtc was not what was asked for"),
    (unreadable, RequestManifest, "invalid", "the two ends did not understand each other over webrtc"),
    (oversized, RequestChunk, "too_large", "it was too large for webrtc"),
    (refusing(Cause.BUSY, LONG_S), RequestChunk, "busy", "the webrtc link was busy"),
    (refusing(Cause.RATE_LIMITED, LONG_S), RequestChunk, "rate_limited", "the peer's limit was reached over webrtc"),
    (refusing(Cause.FORBIDDEN), RequestChunk, "forbidden", "over webrtc"),  # whoever may not do it
    (refusing(Cause.REFUSED), RequestChunk, "refused", "the peer refused over webrtc"),
    (failing_for_a_later_cause, RequestChunk, "other", "webrtc failed for a reason that has no word"),
)


@pytest.fixture
async def scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Scene]:
    async with scene_of_two_nodes(tmp_path, capsys) as scene:
        yield scene


async def test_each_lie_of_a_chunk_service_is_reported_as_what_it_was(scene: Scene) -> None:
    await scene.nodes.a.kill("chunk")
    hostile = HostileChunk(scene.nodes.a)
    await hostile.start()
    try:
        await scene.fetched(hostile.new_link)  # dials; the links of all transports follow
        await scene.all_linked()
        for lie in OVER_WEBRTC:
            await it_lies_over_webrtc(scene, hostile, *lie)
        await it_stalls_over_webrtc(scene, hostile)
        await it_lies_over_all(scene, hostile, damaged, "integrity_mismatch")
        await it_lies_over_all(scene, hostile, refusing(Cause.FORBIDDEN), "forbidden")
        await it_is_busy_over_all(scene, hostile)
        await it_is_gone(scene, hostile)
        await our_manager_is_stopped_for_a_while(scene, hostile)
        await it_refuses_too_often(scene, hostile)
        await a_link_goes_away_under_a_request(scene, hostile)
        await it_never_answers(scene, hostile)
        await our_worker_drains_with_a_request(scene, hostile)
    finally:
        await hostile.stop()


async def it_lies_over_webrtc(
    scene: Scene, hostile: HostileChunk, answer: Answer, about: type[PeerRequest], cause: str, words: str
) -> None:
    hostile.lies(answer, ("webrtc",), about)
    found = await scene.fetched(hostile.new_link)
    # Of the two deliveries, the manifest's comes first.
    returned = about is RequestManifest
    assert (found["verdict"], found["transport"]) == (
        ("returned", "webrtc") if returned else ("fallback", "webtorrent")
    )
    assert (reasons_of(found), causes_of(found)) == ([("webrtc", cause)], [cause])
    assert ("it went over webtorrent because " if returned else "arrived over webtorrent from ") in found["headline"]
    assert f"{words} ({cause})" in found["headline"]
    hostile.is_honest()
    assert (await scene.fetched(hostile.new_link))["verdict"] == "direct"


async def it_stalls_over_webrtc(scene: Scene, hostile: HostileChunk) -> None:
    """Acked and never answered, with another way: it is not waited for to the end."""
    hostile.lies(Stall(), ("webrtc",), RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    await scene.done(transfer)
    found = await scene.why_once(transfer, lambda found: "silent" in causes_of(found))
    assert hops_of(found, "webrtc")[0]["cause"] == "silent"
    assert "silent" in found["headline"]
    hostile.is_honest()


async def it_lies_over_all(scene: Scene, hostile: HostileChunk, answer: Answer, cause: str) -> None:
    hostile.lies(answer, about=RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    assert (await scene.ended(scene.nodes.b.api, transfer)).cause == cause
    found = await scene.why_once(transfer, lambda found: len(found["reasons"]) == len(TRANSPORTS))
    assert found["verdict"] == "failed"
    assert reasons_of(found) == [(transport, cause) for transport in TRANSPORTS]
    assert causes_of(found)[0] == cause
    assert f"({cause}): " in found["headline"]
    assert "no transport is to blame" in found["headline"]
    hostile.is_honest()


async def it_is_busy_over_all(scene: Scene, hostile: HostileChunk) -> None:
    hostile.lies(refusing(Cause.BUSY, LONG_S))
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    found = await scene.why_once(transfer, lambda found: len(found["reasons"]) == len(TRANSPORTS))
    assert (found["verdict"], found["transport"]) == ("stuck", None)
    assert reasons_of(found) == [(transport, "busy") for transport in TRANSPORTS]
    assert "nothing gets through" in found["headline"]
    hostile.is_honest()
    await scene.done(transfer)


async def it_is_gone(scene: Scene, hostile: HostileChunk) -> None:
    """Killed, with nobody in its place: the far workers hold links and nothing to send."""
    link = hostile.file().link
    await hostile.stop()
    transfer = await scene.nodes.b.api.fetch(link)
    found = await scene.why_once(transfer, lambda found: len(found["reasons"]) == len(TRANSPORTS))
    assert found["verdict"] == "stuck"
    assert reasons_of(found) == [(transport, "source_lost") for transport in TRANSPORTS]
    assert "webrtc: the process that held the bytes was lost (source_lost)" in found["headline"]
    await hostile.start()
    await scene.done(transfer)


async def our_manager_is_stopped_for_a_while(scene: Scene, hostile: HostileChunk) -> None:
    stall = Stall()
    hostile.lies(stall, about=RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    await asyncio.wait_for(stall.asked.wait(), DEADLINE_S)
    (manager,) = scene.nodes.b.processes("manager")
    assert manager.pid is not None
    os.kill(manager.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOP_S)  # what is done to it, not a wait for anything
    finally:
        hostile.is_honest()
        stall.release.set()
        os.kill(manager.pid, signal.SIGCONT)
    await scene.done(transfer)
    found = await scene.why_once(transfer, lambda found: "expired" in causes_of(found))
    assert found["verdict"] == "direct"
    assert ("cancelled", "expired") in [(row["outcome"], row["cause"]) for row in found["timeline"]]


async def a_link_goes_away_under_a_request(scene: Scene, hostile: HostileChunk) -> None:
    """The far webtorrent worker is killed while it holds a request: its socket ends at once."""
    await scene.only("webtorrent", "broadcast")
    await scene.linked("webtorrent", 1)
    stall = Stall()
    hostile.lies(stall, about=RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    await asyncio.wait_for(stall.asked.wait(), DEADLINE_S)
    await scene.nodes.a.kill("webtorrent")
    await scene.linked("webtorrent", 0)
    hostile.is_honest()
    stall.release.set()
    await scene.done(transfer)
    found = await scene.why_once(transfer, lambda found: len(found["reasons"]) == 2)
    assert (found["verdict"], found["transport"]) == ("fallback", "broadcast")
    assert reasons_of(found) == [("webrtc", "disabled"), ("webtorrent", "closed")]
    assert "webrtc was switched off (disabled)" in found["headline"]
    assert "the webtorrent link was closed (closed)" in found["headline"]
    scene.nodes.a.revive("webtorrent")
    await scene.linked("webtorrent", 1)


async def it_never_answers(scene: Scene, hostile: HostileChunk) -> None:
    """Acked and never answered, with no other way: the delivery's 10 s pass."""
    await scene.only("webtorrent")
    hostile.lies(Stall(), about=RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    found = await scene.why_once(transfer, lambda found: found["verdict"] == "stuck")
    assert reasons_of(found) == [("webrtc", "disabled"), ("webtorrent", "timeout"), ("broadcast", "disabled")]
    assert "webtorrent: the answer over webtorrent did not come in time (timeout)" in found["headline"]
    hostile.is_honest()
    await scene.give_up(transfer)


async def our_worker_drains_with_a_request(scene: Scene, hostile: HostileChunk) -> None:
    stall = Stall()
    hostile.lies(stall, about=RequestManifest)
    transfer = await scene.nodes.b.api.fetch(hostile.file().link)
    await asyncio.wait_for(stall.asked.wait(), DEADLINE_S)
    (worker,) = scene.nodes.b.processes("webtorrent")
    await worker.stop()
    found = await scene.why_once(transfer, lambda found: found["verdict"] == "stuck")
    assert reasons_of(found) == [("webrtc", "disabled"), ("webtorrent", "draining"), ("broadcast", "disabled")]
    assert "the webtorrent worker was stopped (draining)" in found["headline"]
    hostile.is_honest()
    worker.start()
    await scene.done(transfer)


async def it_refuses_too_often(scene: Scene, hostile: HostileChunk) -> None:
    hostile.lies(refusing(Cause.REFUSED), ("webrtc",))
    for _ in range(CIRCUIT_TRIES):
        found = await scene.fetched(hostile.new_link, spared=True)
        assert (found["verdict"], found["transport"]) == ("fallback", "webtorrent")
        if reasons_of(found) == [("webrtc", "circuit_open")]:
            break
        assert reasons_of(found) == [("webrtc", "refused")]
    assert "because webrtc failed too often and is being spared (circuit_open)" in found["headline"]
    hostile.is_honest()
