"""`swarmbridge why` where the way is barred: each cause is brought about between real nodes, then asked for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.supervisor.machine.node import Node
from shared.content.link import ContentLink, format_link
from shared.ids import PeerToken
from tests.e2e.hostile import Impostor
from tests.e2e.why_scene import (
    DEADLINE_S,
    TRANSPORTS,
    Json,
    Scene,
    causes_of,
    changes_of,
    reasons_of,
    scene_of_two_nodes,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
async def scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Scene]:
    async with scene_of_two_nodes(tmp_path, capsys) as scene:
        yield scene


async def test_each_bar_on_the_way_is_reported_as_what_it_was(scene: Scene) -> None:
    await nobody_is_named(scene)
    await nobody_answers_a_dial(scene)
    await whoever_answers_leads_nowhere(scene)
    await it_links_at_last(scene)
    await chaos_drops(scene)
    await the_far_worker_is_stopped(scene)
    await a_package_is_missing(scene)
    await our_id_is_taken(scene)
    await nobody_listens(scene)
    await somebody_else_answers(scene)


async def nobody_is_named(scene: Scene) -> None:
    transfer = await scene.nodes.b.api.fetch(format_link(ContentLink("ab" * 32)))
    assert (await scene.ended(scene.nodes.b.api, transfer)).cause == "peer_unknown"
    found = await scene.why(transfer)
    assert (found["verdict"], found["reasons"], causes_of(found)) == ("failed", [], ["peer_unknown"])
    assert "failed before any peer was asked (peer_unknown): " in found["headline"]
    assert "no holder was named at all" in found["headline"]


async def nobody_answers_a_dial(scene: Scene) -> None:
    """Before there was ever a link."""
    await scene.nodes.a.kill("webrtc")
    await scene.only("webrtc")
    await scene.serving("webrtc")
    found = await _barred(scene, "dial_timeout")
    assert "webrtc: no webrtc link opened in time (dial_timeout)" in found["headline"]


async def whoever_answers_leads_nowhere(scene: Scene) -> None:
    a = scene.nodes.a
    async with _impostor(Impostor(a, await _token(a), leads_nowhere=True)):
        found = await _barred(scene, "ice_failed")
    assert "webrtc: no network path was found for webrtc (ice_failed)" in found["headline"]


async def it_links_at_last(scene: Scene) -> None:
    scene.nodes.a.revive("webrtc")
    assert (await scene.fetched(scene.new_link))["transport"] == "webrtc"
    await scene.only(*TRANSPORTS)
    await scene.all_linked()


async def chaos_drops(scene: Scene) -> None:
    await scene.cli("flags", "chaos", "webrtc", "--drop", "100")
    transfer = await scene.got()
    found = await scene.why_once(transfer, lambda found: "silent" in causes_of(found))
    assert found["verdict"] == "fallback"
    assert reasons_of(found)[0] == ("webrtc", "silent")
    assert "because chaos was set on webrtc (drop 100 %) (silent)" in found["headline"]
    await scene.cli("flags", "chaos", "webrtc", "--clear")


async def the_far_worker_is_stopped(scene: Scene) -> None:
    (worker,) = scene.nodes.a.processes("webrtc")
    await worker.stop()
    await scene.linked("webrtc", 0)
    found = await scene.fetched(scene.new_link)
    assert (found["verdict"], found["transport"]) == ("fallback", "webtorrent")
    assert (reasons_of(found), causes_of(found)) == ([("webrtc", "no_link")], ["no_link"])
    assert "because the webrtc link was closed (closed, then no_link)" in found["headline"]
    assert "look at the other end or the network" in found["headline"]
    worker.start()
    await scene.linked("webrtc", 1)


async def a_package_is_missing(scene: Scene) -> None:
    (worker,) = scene.nodes.b.processes("webrtc")
    whole = worker.program
    await worker.stop()
    # Executed, not forked: what a nursery has loaded already cannot be missing.
    shadowed = {**whole.environment, "PYTHONPATH": _shadow(scene.folder)}
    worker.program = dataclasses.replace(whole, module="", environment=shadowed)
    worker.start()
    await _in_trouble(scene, "import_failed")
    found = await scene.fetched(scene.new_link)
    assert reasons_of(found) == [("webrtc", "import_failed")]
    assert "because a package that webrtc needs is missing (import_failed)" in found["headline"]
    assert causes_of(found)[0] == "import_failed"
    await worker.stop()
    worker.program = whole


async def our_id_is_taken(scene: Scene) -> None:
    (worker,) = scene.nodes.b.processes("webrtc")
    # A fresh manager wants nobody yet: a probe's failure would be shown in the place of the worker's own trouble.
    await scene.nodes.b.kill("manager")
    scene.nodes.b.revive("manager")
    async with _impostor(Impostor(scene.nodes.b, await _token(scene.nodes.b))):
        worker.start()
        await _in_trouble(scene, "id_taken")
        found = await scene.fetched(scene.new_link)
        assert reasons_of(found) == [("webrtc", "id_taken")]
        assert "because another process holds this node's PeerJS id (id_taken)" in found["headline"]


async def nobody_listens(scene: Scene) -> None:
    await scene.only("broadcast")
    await scene.nodes.a.kill("broadcast")
    transfer = await scene.nodes.b.api.fetch(await scene.new_link())
    found = await scene.why_once(transfer, lambda found: found["verdict"] == "stuck")
    assert reasons_of(found) == [("webrtc", "disabled"), ("webtorrent", "disabled"), ("broadcast", "no_listener")]
    assert "broadcast: nobody listened on broadcast (no_listener)" in found["headline"]
    scene.nodes.a.revive("broadcast")
    await scene.done(transfer)


async def somebody_else_answers(scene: Scene) -> None:
    """Last: it opens the circuit of webrtc."""
    a = scene.nodes.a
    await a.kill("webrtc")
    async with _impostor(Impostor(a, await _token(a))):
        await scene.only("webrtc")
        await scene.serving("webrtc")
        found = await _barred(scene, "unauthenticated")
    assert "webrtc: the peer over webrtc did not prove who it is (unauthenticated)" in found["headline"]


async def _barred(scene: Scene, cause: str) -> Json:
    """The verdict on a transfer over webrtc alone that cannot start.

    A dial's failure is reported again for a second: then it is the next transfer that shows the new one alone.
    """
    async with asyncio.timeout(DEADLINE_S):
        while True:
            transfer = await scene.nodes.b.api.fetch(await scene.new_link())
            found = await scene.why_once(transfer, lambda found: cause in causes_of(found))
            await scene.give_up(transfer)
            assert found["verdict"] == "stuck"
            if reasons_of(found)[0] == ("webrtc", cause):
                return found


async def _in_trouble(scene: Scene, cause: str) -> None:
    """Wait until B's gateway shows it."""
    holder = (await scene.nodes.a.api.node()).name
    await scene.why_once(
        holder, lambda found: [one for one in changes_of(found, "transport_troubled") if one["cause"] == cause]
    )


async def _token(node: Node) -> PeerToken:
    return PeerToken((await node.api.node()).peer)


@asynccontextmanager
async def _impostor(impostor: Impostor) -> AsyncIterator[None]:
    await impostor.start()
    try:
        yield
    finally:
        await impostor.stop()


def _shadow(folder: Path) -> str:
    """Where an aiortc is that cannot be imported."""
    package = folder / "shadow" / "aiortc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise ImportError("not for this test")\n')
    return str(package.parent)
