"""Where a fetched file goes: whatever is there, or comes there while it is fetched, is not lost without --force."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from services.cli.destination import NewFile, written
from services.cli.failures import CliFailure
from shared import exit_codes
from tests.fakes.gateway import FakeGateway
from tests.services.cli.run_cli import Result, run_cli
from tests.services.cli.test_files import CONTENT, DATA, LINK, _transfer

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def fetching(gateway: FakeGateway) -> FakeGateway:
    async def content(request: web.Request) -> web.StreamResponse:
        return web.Response(body=DATA)

    gateway.answers = {
        "POST /api/fetches": {"transfer": "t1"},
        "GET /api/transfers/t1": _transfer("done"),
        CONTENT: content,
    }
    return gateway


def _meanwhile(gateway: FakeGateway, act: Callable[[], object]) -> None:
    """Have something happen when every check is over and the bytes are on their way."""

    async def content(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA[:1000])
        act()
        await response.write(DATA[1000:])
        return response

    gateway.answers[CONTENT] = content


async def _get(capsys: Capsys, gateway: FakeGateway, *arguments: str) -> Result:
    return await run_cli(capsys, "get", LINK, *arguments, "--home", str(gateway.home))


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "home")


@pytest.mark.parametrize("named", [True, False])
async def test_a_file_that_comes_meanwhile_stays(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, named: bool
) -> None:
    target = tmp_path / "photo.jpg"
    _meanwhile(fetching, lambda: target.write_text("somebody's work"))
    result = await _get(capsys, fetching, "-o", str(target if named else tmp_path))
    assert result.code == exit_codes.FAILED
    assert "photo.jpg is already there" in result.error_line()
    assert target.read_text() == "somebody's work"
    assert _names(tmp_path) == ["photo.jpg"]


async def test_of_two_gets_into_one_folder_one_says_that_it_was_late(fetching: FakeGateway, tmp_path: Path) -> None:
    both = asyncio.Barrier(2)

    async def content(request: web.Request) -> web.StreamResponse:
        await both.wait()
        return web.Response(body=DATA)

    fetching.answers[CONTENT] = content
    command = ("-m", "services.cli", "get", LINK, "-o", str(tmp_path), "--home", str(fetching.home))
    gets = [
        await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE) for _ in range(2)
    ]
    errors = [(await get.communicate())[1].decode() for get in gets]
    assert sorted(get.returncode or 0 for get in gets) == [0, exit_codes.FAILED]
    assert ["already there" in error for error in errors].count(True) == 1
    assert (tmp_path / "photo.jpg").read_bytes() == DATA
    assert _names(tmp_path) == ["photo.jpg"]


async def test_what_is_there_is_said_before_anything_is_fetched(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    assert "--force" in (await _get(capsys, fetching, "-o", str(target))).error_line()
    assert (await _get(capsys, fetching, "-o", str(tmp_path / "no" / "file"))).code == exit_codes.FAILED
    assert fetching.asked == []
    assert target.read_text() == "old"


@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
async def test_through_a_symbolic_link_nothing_is_written_without_force(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, leads: str
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    if leads == "somewhere":
        real.write_text("old")
    assert (await _get(capsys, fetching, "-o", str(link))).code == exit_codes.FAILED
    assert link.is_symlink()
    assert real.exists() == (leads == "somewhere")

    assert (await _get(capsys, fetching, "-o", str(link), "--force")).code == 0
    assert link.is_symlink()  # and what it leads to is what was replaced
    assert real.read_bytes() == DATA
    assert _names(tmp_path) == ["link", "real"]


async def test_a_symbolic_link_that_comes_meanwhile_is_not_followed(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.write_text("another's")
    _meanwhile(fetching, lambda: target.symlink_to(elsewhere))
    assert (await _get(capsys, fetching, "-o", str(target))).code == exit_codes.FAILED
    assert elsewhere.read_text() == "another's"


async def test_a_device_is_written_into_and_stays_one(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    for output in ("/dev/null", str(link)):
        result = await _get(capsys, fetching, "-o", output)
        assert (result.code, result.out) == (0, "")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert link.is_symlink()


async def test_a_pipe_is_written_into(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert (await _get(capsys, fetching, "-o", str(pipe))).code == 0
    reader.join()
    assert read == [DATA]
    assert _names(tmp_path) == ["pipe"]


async def test_what_is_no_file_is_refused(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        result = await _get(capsys, fetching, "-o", str(tmp_path / "socket"), "--force")
    assert "is no file" in result.error_line()
    (tmp_path / "photo.jpg").mkdir()
    assert "is no file" in (await _get(capsys, fetching, "-o", str(tmp_path), "--force")).error_line()


async def test_a_folder_that_goes_meanwhile_is_a_line(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    _meanwhile(fetching, lambda: folder.rename(tmp_path / "moved"))
    result = await _get(capsys, fetching, "-o", str(folder / "file"))
    assert result.code == exit_codes.FAILED
    assert "cannot be written" in result.error_line()


async def test_a_full_disk_is_its_own_error(fetching: FakeGateway, capsys: Capsys) -> None:
    result = await _get(capsys, fetching, "-o", "/dev/full", "--json")  # fits into no buffer, so a write fails
    assert result.code == exit_codes.FAILED
    assert result.json["error"]["code"] == "disk_full"
    assert "/dev/full" in result.json["error"]["message"]


async def test_what_replaces_a_file_is_readable_by_nobody_else_than_it_was(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o600)
    assert (await _get(capsys, fetching, "-o", str(target), "--force")).code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    new = tmp_path / "new"
    assert (await _get(capsys, fetching, "-o", str(new))).code == 0
    mask = os.umask(0)
    os.umask(mask)
    assert new.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("taken", [True, False])
def test_where_a_file_system_has_no_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    target = tmp_path / "target"

    def write() -> None:
        with written(NewFile(target, replaces=False)) as file:
            file.write(DATA)
            if taken:
                target.write_text("another's")

    if taken:
        with pytest.raises(CliFailure, match="already there"):
            write()
        assert target.read_text() == "another's"
    else:
        write()
        assert target.read_bytes() == DATA
    assert _names(tmp_path) == ["target"]


def test_a_long_name_has_room_for_its_draft(tmp_path: Path) -> None:
    target = tmp_path / ("\U0001f469" * 63)
    with written(NewFile(target, replaces=False)) as file:
        file.write(DATA)
    assert target.read_bytes() == DATA
