"""The story strikes when it should and notices when something does not hold; gateways and nodes are fakes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.supervisor.demo.report import FileResult, Report, checks
from services.supervisor.demo.story import Story
from shared.gateway_api.errors import GatewayError, NotRunning
from shared.gateway_api.structs import Transfer
from tests.services.supervisor.actors import FakeActor, World, fake_actor

SIZE_MIB = 12


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.carriers: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def fault(self, line: str) -> None:
        self.lines.append(line)

    def moving(self, label: str) -> None:
        pass

    def progress(self, label: str, now: Transfer, carrier: str) -> None:
        self.carriers.append(carrier)

    def moved(self, result: FileResult) -> None:
        self.lines.append(result.label)

    def report(self, report: Report) -> None:
        raise AssertionError("the story does not report")

    def close(self) -> None:
        pass


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def actors(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FakeActor, FakeActor]]:
    async with AsyncExitStack() as held:
        a, b = [
            await held.enter_async_context(fake_actor(world, name, tmp_path_factory.mktemp(name)))
            for name in ("a", "b")
        ]
        yield a, b


async def test_the_story_as_it_should_go(world: World, actors: tuple[FakeActor, FakeActor], tmp_path: Path) -> None:
    extra = tmp_path / "mine.bin"
    extra.write_bytes(b"x" * 2**20)
    view = Recorder()
    story = Story(*actors, view, tmp_path, SIZE_MIB, [extra])
    await story.tell()
    assert world.events == [
        "kill webrtc a",
        "kill webrtc b",
        "flag False",
        "revive webrtc a",
        "revive webrtc b",
        "flag True",
    ]
    files = story.happened.files
    assert [file.ended_on for file in files] == ["webrtc", "webrtc", "webtorrent", "broadcast", "webrtc", "webrtc"]
    assert list(files[2].by_transport) == ["webrtc", "webtorrent"]
    assert files[2].by_transport["webrtc"] >= 4 * 2**20
    assert list(files[3].by_transport) == ["webtorrent", "broadcast"]
    assert all(check.ok for check in checks(files, story.happened.faults))
    assert [(fault.transport, fault.ok) for fault in story.happened.faults] == [("webrtc", True), ("webtorrent", True)]
    assert {"webrtc", "webtorrent", "broadcast"} <= set(view.carriers)
    assert all(len(hops) == file.chunks + 1 for file, hops in zip(files, story.happened.hops, strict=True))


async def test_a_file_that_was_over_too_soon_is_followed_by_one_that_feels_the_fault(
    world: World, actors: tuple[FakeActor, FakeActor], tmp_path: Path
) -> None:
    world.chunks_a_poll = 100
    story = Story(*actors, Recorder(), tmp_path, SIZE_MIB, [])
    await story.tell()
    labels = [file.label for file in story.happened.files]
    assert labels == ["hello", "file 1", "file 2", "file 2, more 1", "file 3", "file 3, more 1", "file 4"]
    assert all(check.ok for check in checks(story.happened.files, story.happened.faults))


async def test_a_fallback_that_nobody_can_explain_does_not_hold(
    world: World, actors: tuple[FakeActor, FakeActor], tmp_path: Path
) -> None:
    world.cause = "other"
    story = Story(*actors, Recorder(), tmp_path, SIZE_MIB, [])
    await story.tell()
    failed = [check.name for check in checks(story.happened.files, story.happened.faults) if not check.ok]
    assert len(failed) == 2
    assert "unexplained" in failed[0]


async def test_a_busy_machine_is_said_once_and_judged_alike(
    world: World, actors: tuple[FakeActor, FakeActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared_processor(path: Path) -> tuple[str, float, float]:
        return hashlib.sha256(path.read_bytes()).hexdigest(), 0.4, 0.1

    monkeypatch.setattr("services.supervisor.demo.story._timed_sha256", shared_processor)
    view = Recorder()
    story = Story(*actors, view, tmp_path, SIZE_MIB, [])
    await story.tell()
    assert [line for line in view.lines if "busy" in line] == [
        "this machine is busy: work takes 4.0 times its CPU time; everything takes longer and is judged alike"
    ]
    assert all(check.ok for check in checks(story.happened.files, story.happened.faults))


async def test_wrong_content_is_noticed(world: World, actors: tuple[FakeActor, FakeActor], tmp_path: Path) -> None:
    world.corrupt = True
    story = Story(*actors, Recorder(), tmp_path, SIZE_MIB, [])
    await story.tell()
    assert not any(file.sha256_ok for file in story.happened.files)


async def test_a_refusal_carries_its_code(actors: tuple[FakeActor, FakeActor]) -> None:
    with pytest.raises(GatewayError) as refused:
        await actors[0].api.set_flag("nonsense", True)
    assert refused.value.code == "not_found"


async def test_a_gateway_that_is_not_there_is_unreachable(actors: tuple[FakeActor, FakeActor]) -> None:
    api = type(actors[0].api)("http://127.0.0.1:9", "token")
    with pytest.raises(NotRunning):
        await api.node()
    await api.close()
