from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shared import exit_codes
from tests.fakes.gateway import FakeGateway, problem, then
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
DIGEST = "ab" * 32
LINK = f"swarmbridge:{DIGEST}"
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
DATA = os.urandom(600_000)
CONTENT = f"GET /api/files/{DIGEST}/content"


def _transfer(state: str, **changes: Any) -> dict[str, Any]:
    transfer = {
        "id": "t1",
        "kind": "get",
        "state": state,
        "name": "photo.jpg",
        "chunksDone": 1,
        "chunksTotal": 1,
        "bytesDone": len(DATA),
        "bytesTotal": len(DATA),
        "byTransport": {"webrtc": 500_000, "broadcast": 100_000},
        "cause": None,
        "link": "",
        "manifest": DIGEST,
        "startedAt": 1,
    }
    return {**transfer, **changes}


async def _content(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DATA)


async def _cut_short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = len(DATA)
    await response.prepare(request)
    await response.write(DATA[:1000])
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.fixture
def fetching(gateway: FakeGateway) -> FakeGateway:
    gateway.answers = {
        "POST /api/fetches": {"transfer": "t1"},
        "GET /api/transfers/t1": then(_transfer("running", bytesDone=5), _transfer("done")),
        CONTENT: _content,
    }
    return gateway


def _left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "home")


async def test_put_prints_the_link_and_nothing_else(gateway: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(DATA)

    async def upload(request: web.Request) -> web.StreamResponse:
        assert request.content_length == len(DATA)
        gateway.bodies["upload"] = await request.read()
        return web.json_response({"transfer": "t1"}, status=202)

    gateway.answers = {
        "POST /api/files": upload,
        "GET /api/transfers/t1": then(_transfer("running"), _transfer("done", link=LINK)),
    }
    result = await run_cli(capsys, "put", str(file), "--class", "mesh", "--home", str(gateway.home))
    assert (result.code, result.out) == (0, LINK + "\n")
    assert "photo.jpg: 585.9 KiB" in result.err
    assert gateway.bodies["upload"] == DATA
    assert ("POST /api/files", {"name": "photo.jpg", "mime": "image/jpeg", "class": "mesh"}) in gateway.asked

    result = await run_cli(capsys, "put", str(file), str(file), "--json", "--home", str(gateway.home))
    first, _ = result.json["files"]
    assert (first["link"], first["bytes"], first["manifest"]) == (LINK, len(DATA), DIGEST)


async def test_a_put_that_fails_says_why(gateway: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    gateway.answers = {
        "POST /api/files": {"transfer": "t1"},
        "GET /api/transfers/t1": _transfer("failed", cause="too_large"),
    }
    result = await run_cli(capsys, "put", str(file), "--home", str(gateway.home))
    assert result.code == exit_codes.FAILED
    assert "the transfer failed: too_large" in result.error_line()

    async def full(request: web.Request) -> web.StreamResponse:
        await request.read()
        return problem(413, "too_large", "this is larger than the node takes", "send less")

    gateway.answers["POST /api/files"] = full
    result = await run_cli(capsys, "put", str(file), "--home", str(gateway.home))
    assert result.error_line() == "error: this is larger than the node takes; send less\n"


async def test_get_writes_the_file_under_its_name(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = await run_cli(capsys, "get", LINK, "--home", str(fetching.home))
    assert (result.code, result.out) == (0, "photo.jpg\n")
    assert "webrtc 488.3 KiB, broadcast 97.7 KiB" in result.err
    assert (tmp_path / "photo.jpg").read_bytes() == DATA
    assert _left_in(tmp_path) == ["photo.jpg"]

    again = await run_cli(capsys, "get", LINK, "--home", str(fetching.home))
    assert again.code == exit_codes.FAILED
    assert "photo.jpg is already there" in again.error_line()
    assert (await run_cli(capsys, "get", LINK, "--force", "--home", str(fetching.home))).code == 0


async def test_get_to_a_folder_a_file_and_standard_output(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    home = ("--home", str(fetching.home))
    folder = tmp_path / "folder"
    folder.mkdir()
    result = await run_cli(capsys, "get", LINK, "-o", str(folder), "--json", *home)
    assert (result.json["path"], result.json["bytes"]) == (str(folder / "photo.jpg"), len(DATA))
    assert result.json["byTransport"] == {"webrtc": 500_000, "broadcast": 100_000}

    target = tmp_path / "other"
    assert (await run_cli(capsys, "get", LINK, "-o", str(target), *home)).code == 0
    assert target.read_bytes() == DATA

    missing = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "no" / "file"), *home)
    assert "there is no folder" in missing.error_line()


async def test_the_key_goes_in_its_header_on_the_download_alone(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    result = await run_cli(capsys, "get", f"{LINK}#{KEY}", "-o", str(tmp_path / "a"), "--home", str(fetching.home))
    assert result.code == 0
    assert json.loads(fetching.bodies["POST /api/fetches"]) == {"link": LINK}
    assert fetching.headers[CONTENT]["X-Swarmbridge-Key"] == KEY
    others = {key: value for key, value in fetching.headers.items() if key != CONTENT}
    assert KEY not in repr(others)
    assert KEY not in repr(fetching.asked)


async def test_a_download_that_is_cut_leaves_nothing(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    fetching.answers[CONTENT] = _cut_short
    target = tmp_path / "target"
    target.write_text("old")
    result = await run_cli(capsys, "get", LINK, "-o", str(target), "--force", "--home", str(fetching.home))
    assert result.code == exit_codes.FAILED
    assert "broke off" in result.error_line()
    assert target.read_text() == "old"
    assert _left_in(tmp_path) == ["target"]


NAMES = ["Shot 3.14\u202fPM.png", "\u0645\u06cc\u200c\u062e.pdf", "\U0001f469\u200d\U0001f4bb\u00a0.png"]


@pytest.mark.parametrize("name", NAMES)
async def test_names_of_any_script_go_in_and_come_out(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetching.answers["GET /api/transfers/t1"] = _transfer("done", name=name, link=LINK)
    assert (await run_cli(capsys, "get", LINK, "--home", str(fetching.home))).code == 0
    assert _left_in(tmp_path) == [name]
    fetching.answers["POST /api/files"] = {"transfer": "t1"}
    assert (await run_cli(capsys, "put", name, "--again", "--home", str(fetching.home))).code == 0
    [query] = [query for key, query in fetching.asked if key == "POST /api/files"]
    assert (query["name"], query["again"]) == (name, "1")


async def test_a_name_that_is_no_utf_8_is_refused_and_another_can_be_given(
    gateway: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_bytes(b"x")
    gateway.answers = {"POST /api/files": {"transfer": "t1"}, "GET /api/transfers/t1": _transfer("done", link=LINK)}
    result = await run_cli(capsys, "put", str(file), "--home", str(gateway.home))
    assert result.code == exit_codes.USAGE
    assert "--name" in result.error_line()
    assert gateway.asked == []
    assert (await run_cli(capsys, "put", str(file), "--name", "café.txt", "--home", str(gateway.home))).code == 0


@pytest.mark.parametrize("cause", ["refused", "store_full", "disk_full", "store_failed"])
async def test_an_end_that_no_transport_brought_about_says_what_to_do(
    fetching: FakeGateway, capsys: Capsys, cause: str
) -> None:
    fetching.answers["GET /api/transfers/t1"] = _transfer("failed", cause=cause)
    line = (await run_cli(capsys, "get", LINK, "--home", str(fetching.home))).error_line()
    assert {"refused": "trust.members", "store_failed": "log"}.get(cause, "store") in line
    assert "swarmbridge why" not in line


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..\\evil", ".evil", "ev\x1bil", "--evil"])
async def test_a_name_from_afar_leads_nowhere_else(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetching.answers["GET /api/transfers/t1"] = _transfer("done", name=name)
    assert (await run_cli(capsys, "get", LINK, "--home", str(fetching.home))).code == 0
    assert _left_in(tmp_path) == ["evil"]


async def test_a_file_without_a_name_gets_one(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetching.answers["GET /api/transfers/t1"] = _transfer("done", name="..")
    result = await run_cli(capsys, "get", LINK, "--home", str(fetching.home))
    assert result.out == f"{DIGEST[:16]}.bin\n"


async def test_a_fetch_that_fails_says_why(fetching: FakeGateway, capsys: Capsys) -> None:
    fetching.answers["GET /api/transfers/t1"] = _transfer("failed", cause="no_link")
    result = await run_cli(capsys, "get", LINK, "--json", "--home", str(fetching.home))
    assert result.code == exit_codes.FAILED
    assert result.json["error"]["code"] == "no_link"


async def test_what_a_transfer_waits_for_is_said_once(fetching: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    waits = _transfer("running", waiting="bus_unavailable", reason="The node's own bus is away.")
    fetching.answers["GET /api/transfers/t1"] = then(waits, waits, _transfer("running"), _transfer("done"))
    result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "a"), "--home", str(fetching.home))
    assert result.code == 0
    assert result.err.splitlines()[:2] == ["waiting: The node's own bus is away.", "it goes on"]
    other = _transfer("running", waiting="no_link", reason="No holder can be reached.")
    fetching.answers["GET /api/transfers/t1"] = then(waits, other, waits, other, _transfer("done"))
    result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "c"), "--home", str(fetching.home))
    assert result.err.count("waiting: ") == 2
    fetching.answers["GET /api/transfers/t1"] = then(waits, _transfer("done"))
    quiet = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "b"), "--json", "--home", str(fetching.home))
    assert (quiet.code, quiet.err) == (0, "")


async def test_a_failure_is_in_the_nodes_words(fetching: FakeGateway, capsys: Capsys) -> None:
    reason = "No holder can be reached over any transport (last: no_listener); see whether the other node runs."
    fetching.answers["GET /api/transfers/t1"] = _transfer("failed", cause="no_listener", reason=reason)
    line = (await run_cli(capsys, "get", LINK, "--home", str(fetching.home))).error_line()
    assert "transfer failed (no_listener): No holder can be reached" in line
    assert "swarmbridge why t1" in line


async def test_a_download_of_which_nothing_comes_says_so(
    fetching: FakeGateway, capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cli.progress.PATIENCE_S", 0.05)
    said, loop = asyncio.Event(), asyncio.get_running_loop()
    monkeypatch.setattr("services.cli.progress._Lines.say", lambda self, text: loop.call_soon_threadsafe(said.set))

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA[:1000])
        await said.wait()  # it is the line that lets it go on
        await response.write(DATA[1000:])
        return response

    fetching.answers[CONTENT] = late
    async with asyncio.timeout(30):
        result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "a"), "--home", str(fetching.home))
    assert result.code == 0
    assert (tmp_path / "a").read_bytes() == DATA
