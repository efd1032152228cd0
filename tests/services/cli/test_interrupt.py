"""Ctrl-C and SIGTERM on a real process: the code, the line, nothing left, and the node notified."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web

from shared import exit_codes
from tests.fakes.gateway import FakeGateway
from tests.fakes.waiting import until
from tests.services.cli.test_files import CONTENT, DATA, LINK, _transfer

START_S = 30.0


async def _interrupted(gateway: FakeGateway, folder: Path, number: signal.Signals, seen: str) -> tuple[int | None, str]:
    arguments = ("-m", "services.cli", "get", LINK, "-o", str(folder / "out"), "--home", str(gateway.home))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    await until(lambda: any(key == seen for key, _ in gateway.asked), START_S)
    process.send_signal(number)
    _, error = await asyncio.wait_for(process.communicate(), START_S)
    return process.returncode, error.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_fetch_is_cancelled_at_the_node(
    gateway: FakeGateway, tmp_path: Path, number: signal.Signals
) -> None:
    gateway.answers = {
        "POST /api/fetches": {"transfer": "t1"},
        "GET /api/transfers/t1": _transfer("running"),
        "DELETE /api/transfers/t1": _transfer("failed"),
    }
    code, error = await _interrupted(gateway, tmp_path, number, "GET /api/transfers/t1")
    assert code == exit_codes.INTERRUPTED
    assert error == "error: interrupted; run it again to resume: what has arrived stays in the node\n"
    assert ("DELETE /api/transfers/t1", {}) in gateway.asked


async def test_an_interrupted_download_leaves_no_part(gateway: FakeGateway, tmp_path: Path) -> None:
    async def stuck(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA[:1000])
        await asyncio.sleep(START_S)
        return response

    gateway.answers = {
        "POST /api/fetches": {"transfer": "t1"},
        "GET /api/transfers/t1": _transfer("done"),
        CONTENT: stuck,
    }
    code, _ = await _interrupted(gateway, tmp_path, signal.SIGINT, CONTENT)
    assert code == exit_codes.INTERRUPTED
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]  # noqa: ASYNC240
