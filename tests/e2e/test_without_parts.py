"""Whatever the webtorrent worker lacks, files go on coming, and the node says what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e import parts
from tests.e2e.why_scene import Scene, scene_of_two_nodes

pytestmark = pytest.mark.e2e


@pytest.fixture
async def scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Scene]:
    async with scene_of_two_nodes(tmp_path, capsys) as scene:
        yield scene


async def test_a_package_that_is_missing_costs_only_what_it_was_for(scene: Scene) -> None:
    await parts.without_libtorrent(scene, parts.shown)
    await parts.without_aiortc(scene, parts.shown)
    await parts.without_both(scene, parts.shown)
    await parts.everything_is_back(scene)
    await parts.without_the_worker(scene, parts.shown)


async def test_without_tracker_and_dht_a_node_is_found_where_it_was(scene: Scene) -> None:
    await parts.without_tracker_and_dht(scene, parts.shown)
